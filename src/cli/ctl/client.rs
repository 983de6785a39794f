//! Requests to a node's local API.
//!
//! Owns one request and its refusals in words, pages, and finding one thing by what people call it.
//! Does not own what answers mean.

use std::{
    io::{self, BufRead, BufReader},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use super::find::Node;

/// The API answers within 30 s, whatever happens.
const ANSWER_MAX: Duration = Duration::from_secs(35);
/// Largest answer: a page of a thousand streams has less.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Pages that are followed: the directory is far smaller.
const PAGES_MAX: usize = 100;

/// One node's API.
#[derive(Debug)]
pub struct Client {
    node: Node,
    agent: Agent,
}

impl Client {
    /// Talks to `node`, never through a proxy.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(ANSWER_MAX))
            .build();
        Self { node, agent: config.into() }
    }

    /// # Errors
    /// What the node, or the way to it, says.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        read(
            self.answer(
                self.agent.get(self.url(path)).header("Authorization", self.bearer()).call(),
            )?,
        )
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
        let answer = match body {
            Some(body) => request.header("Content-Type", "application/json").send(body.to_string()),
            None => request.send_empty(),
        };
        read(self.answer(answer)?)
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.agent.patch(self.url(path)).header("Authorization", self.bearer());
        let request = request.header("Content-Type", "application/json");
        read(self.answer(request.send(body.to_string()))?)
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn delete(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.agent.delete(self.url(path)).header("Authorization", self.bearer());
        read(self.answer(request.call())?)
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn pages(&self, path: &str, field: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = match after.as_str() {
                "" => self.get(path)?,
                after => self.get(&format!("{path}{joint}after={}", encode(after)))?,
            };
            items.extend(page[field].as_array().into_iter().flatten().cloned());
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        Ok(items)
    }

    /// The lines of an answer that goes on.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn lines(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Iterator<Item = io::Result<String>> + use<>> {
        let request = self.agent.get(self.url(path)).header("Authorization", self.bearer());
        let answer = self.answer(request.call())?;
        Ok(BufReader::new(answer.into_body().into_reader()).lines())
    }

    /// The id, as a path has it, of the stream that people call `name`.
    ///
    /// # Errors
    /// When none is called so, or several are.
    pub fn stream(&self, name: &str) -> anyhow::Result<String> {
        if name.starts_with("astral:") || is_id(name) {
            return Ok(encode(name));
        }
        self.one("/streams", "streams", name, &["id", "name"])
    }

    /// The id of the one item of a list whose `id` begins with `name`, or one of whose other
    /// `fields` is it.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub fn one(
        &self,
        path: &str,
        list: &str,
        name: &str,
        fields: &[&str],
    ) -> anyhow::Result<String> {
        if is_id(name) {
            return Ok(name.to_owned());
        }
        let items = self.pages(path, list)?;
        pick(&items, name, fields)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.node.api)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.node.token)
    }

    fn answer(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> anyhow::Result<Response<Body>> {
        let mut answer = answer.with_context(|| format!("asking the node at {}", self.node.api))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{detail}"),
            None => bail!("the node answers {status}: is {} an Astral node?", self.node.api),
        }
    }
}

fn read(mut answer: Response<Body>) -> anyhow::Result<Value> {
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
    let text = body.read_to_string().context("reading the node's answer")?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).context("reading the node's answer")
}

/// Which item people call `name`: by a whole field first, then by the beginning of its id.
fn pick(items: &[Value], name: &str, fields: &[&str]) -> anyhow::Result<String> {
    let id = |item: &Value| item["id"].as_str().unwrap_or_default().to_owned();
    let exact = |item: &&Value| fields.iter().any(|field| item[*field] == name);
    let begins = |item: &&Value| name.len() >= 4 && id(item).starts_with(name);
    let mut found: Vec<String> = items.iter().filter(exact).map(id).collect();
    if found.is_empty() {
        found = items.iter().filter(begins).map(id).collect();
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            bail!("nothing here is called {name}: use its name, id or link, as the lists show it")
        }
        several => bail!("several are called {name}; use an id: {}", several.join(", ")),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a text so that it is one part of a path, or one value of a query.
#[must_use]
pub fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(
            |byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn things_are_found_by_their_name_or_the_beginning_of_their_id() {
        let items = [
            json!({"id": "abcd11", "name": "garden"}),
            json!({"id": "abcd22", "name": "pond"}),
            json!({"id": "ffff33", "name": "abcd"}),
            json!({"id": "eeee44", "name": "pond"}),
        ];
        let pick = |name: &str| pick(&items, name, &["id", "name"]);
        assert_eq!(pick("garden").unwrap(), "abcd11");
        assert_eq!(pick("abcd2").unwrap(), "abcd22");
        assert_eq!(pick("abcd").unwrap(), "ffff33", "a whole name goes first");
        assert!(pick("pond").unwrap_err().to_string().contains("eeee44"));
        assert!(pick("ab").is_err(), "too short to be meant");
        assert!(pick("lake").is_err());
    }

    #[test]
    fn what_people_type_is_one_part_of_a_path() {
        assert_eq!(encode("astral:ab/c d"), "astral%3Aab%2Fc%20d");
        assert_eq!(encode("../node?x=1&y"), "..%2Fnode%3Fx%3D1%26y");
    }
}
