//! `astral ctl`: a running node, seen and steered from the command line.
//!
//! Owns the verbs and what they print. Does not own finding the node (`find`), talking to it
//! (`client`) nor tables (`table`). One verb is one or two requests to the node's local API.

mod client;
mod find;
mod show;
mod table;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use self::client::Client;
use super::ladder::Height;
use crate::config::Picture;

/// Flags of `astral ctl`.
#[derive(Args, Debug)]
pub struct CtlArgs {
    /// The node's data directory [default: that of the node that runs under the user's data folder]
    #[arg(long, env = "ASTRAL_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// The node's API, when it is none of this machine's; with --token-file
    #[arg(long, value_name = "URL", requires = "token_file", global = true)]
    api: Option<String>,
    /// File that holds the token
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Print the API's JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// What the node is and does
    Status,
    /// Nodes it knows
    Nodes,
    /// One of those nodes
    #[command(subcommand)]
    Node(NodeVerb),
    /// Streams it knows
    Streams {
        /// Words in the name, title, description or tags
        words: Vec<String>,
    },
    /// One stream; STREAM is its name, link, id, or the beginning of its id
    #[command(subcommand)]
    Stream(StreamVerb),
    /// Tickets given to children and held from parents
    Tickets,
    /// One ticket
    #[command(subcommand)]
    Ticket(TicketVerb),
    /// Join a stream, so that players on this machine start at once; prints where to play it
    Watch {
        /// Which stream
        stream: String,
        /// Leave it instead
        #[arg(long)]
        stop: bool,
    },
    /// Forward a stream without playing it
    Seed {
        /// Which stream
        stream: String,
        /// Stop instead
        #[arg(long)]
        stop: bool,
    },
    /// Where to play a stream, and where its encoder publishes
    Url {
        /// Which stream
        stream: String,
    },
    /// Show the limits, or change those that are given; `none` lifts one
    Settings {
        /// Upload limit, such as 20Mbit
        #[arg(long, value_name = "RATE|none")]
        uplink: Option<String>,
        /// Copies of one stream
        #[arg(long, value_name = "N|none")]
        max_copies: Option<String>,
        /// Copies of all streams together
        #[arg(long, value_name = "N|none")]
        max_total_copies: Option<String>,
    },
    /// Cameras, microphones and screens of the node's machine
    Devices,
    /// What is in order on the node, what is not, and what to do
    Doctor,
    /// The last lines of the node's log
    Logs {
        /// How many
        #[arg(long, default_value_t = 50, value_name = "N")]
        lines: u32,
    },
    /// Who feeds whom, as far as the node knows
    Graph,
    /// What happens, one JSON object a line, until interrupted
    Events {
        /// End after so many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// A new link that opens the web page in a browser, once
    Web,
    /// Let the node leave politely and end
    Shutdown,
}

#[derive(Subcommand, Debug)]
enum NodeVerb {
    /// Close the connection to a node and forget its addresses
    Forget {
        /// Its id, or the beginning of it
        node: String,
    },
}

#[derive(Subcommand, Debug)]
enum TicketVerb {
    /// End a ticket that the node gave: its bytes stop, and the child looks elsewhere
    Revoke {
        /// Its number
        ticket: String,
    },
}

#[derive(Subcommand, Debug)]
enum StreamVerb {
    /// What it is and what flows
    Show {
        /// Which stream
        stream: String,
    },
    /// Publish a new one
    Create {
        /// Its name
        name: String,
        /// Where its media comes from; `astral ctl status` lists what the node offers
        #[arg(long, default_value = "rtmp")]
        source: String,
        #[command(flatten)]
        words: Words,
        /// Number of stripes: 1, 2, 4, 8 or 16
        #[arg(long)]
        stripes: Option<u8>,
        /// The picture, of what the node captures.
        #[command(flatten)]
        picture: Picture,
        /// Also a smaller picture, of what the node captures: 720p, 480p, 360p or 240p; may be given
        /// several times
        #[arg(long = "rendition", value_name = "HEIGHT")]
        renditions: Vec<Height>,
        /// Let the node's encoder follow the uplink
        #[arg(long)]
        adaptive: bool,
        /// Show it on this machine alone until `stream live`
        #[arg(long)]
        preview: bool,
    },
    /// Announce an own stream that was a preview: others see it from its next keyframe on
    Live {
        /// Which stream
        stream: String,
    },
    /// Change what lists show of an own stream
    Edit {
        /// Which stream
        stream: String,
        #[command(flatten)]
        words: Words,
    },
    /// Pause an own stream for everybody
    Pause {
        /// Which stream
        stream: String,
    },
    /// Let a paused stream go on
    Resume {
        /// Which stream
        stream: String,
    },
    /// Keep a stream in files on the node's machine
    Record {
        /// Which stream
        stream: String,
        /// End the recording instead
        #[arg(long)]
        stop: bool,
        /// What files
        #[arg(long, default_value = "flv", value_parser = ["flv", "mp4"], conflicts_with = "stop")]
        format: String,
    },
    /// End an own stream for everybody
    Stop {
        /// Which stream
        stream: String,
    },
}

/// What lists show of a stream.
#[derive(Args, Debug)]
struct Words {
    /// A line for people
    #[arg(long)]
    title: Option<String>,
    /// A paragraph for people
    #[arg(long)]
    description: Option<String>,
    /// A word to find it by; may be given several times
    #[arg(long = "tag")]
    tags: Vec<String>,
}

impl Words {
    fn fields(self) -> Map<String, Value> {
        let mut fields = Map::new();
        if let Some(title) = self.title {
            fields.insert("title".into(), title.into());
        }
        if let Some(description) = self.description {
            fields.insert("description".into(), description.into());
        }
        if !self.tags.is_empty() {
            fields.insert("tags".into(), self.tags.into());
        }
        fields
    }
}

/// Carries out one verb; blocks.
///
/// # Errors
/// When no node is found or it refuses; the message says what to do.
pub fn run(args: CtlArgs) -> anyhow::Result<()> {
    let node = find::node(args.data_dir.as_deref(), args.api, args.token_file)?;
    let client = Client::new(node);
    let ctl = Ctl { client, json: args.json };
    match args.verb {
        Verb::Status => ctl.show("/node", show::status),
        Verb::Nodes => ctl.list("/peers", "peers", show::nodes),
        Verb::Node(NodeVerb::Forget { node }) => {
            let node = ctl.client.one("/peers", "peers", &node, &["id"])?;
            ctl.done(ctl.client.delete(&format!("/peers/{node}"))?, "forgotten")
        }
        Verb::Streams { words } => {
            let query = client::encode(&words.join(" "));
            ctl.list(&format!("/streams?q={query}"), "streams", show::streams)
        }
        Verb::Stream(verb) => ctl.stream(verb),
        Verb::Tickets => ctl.list("/tickets", "tickets", show::tickets),
        Verb::Ticket(TicketVerb::Revoke { ticket }) => {
            let path = format!("/tickets/{}", client::encode(&ticket));
            ctl.done(ctl.client.delete(&path)?, "revoked")
        }
        Verb::Watch { stream, stop } => ctl.join(&stream, "watch", stop),
        Verb::Seed { stream, stop } => ctl.join(&stream, "seed", stop),
        Verb::Url { stream } => {
            let id = ctl.client.stream(&stream)?;
            ctl.show(&format!("/streams/{id}/url"), show::urls)
        }
        Verb::Settings { uplink, max_copies, max_total_copies } => {
            ctl.settings(uplink, max_copies, max_total_copies)
        }
        Verb::Devices => ctl.list("/devices", "devices", show::devices),
        Verb::Doctor => ctl.doctor(),
        Verb::Logs { lines } => ctl.show(&format!("/logs?lines={lines}"), show::logs),
        Verb::Graph => ctl.show("/graph", show::graph),
        Verb::Events { count } => ctl.events(count),
        Verb::Web => {
            let link = ctl.client.post("/links", None)?;
            ctl.print(&link, |link| show::text(&link["url"]))
        }
        Verb::Shutdown => ctl.done(ctl.client.post("/node/shutdown", None)?, "leaving"),
    }
}

struct Ctl {
    client: Client,
    json: bool,
}

impl Ctl {
    /// Prints an answer, as JSON or in words.
    fn print(&self, value: &Value, words: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
        let text = if self.json { value.to_string() } else { words(value) };
        print(&text)
    }

    fn show(&self, path: &str, words: fn(&Value) -> String) -> anyhow::Result<()> {
        self.print(&self.client.get(path)?, words)
    }

    fn list(&self, path: &str, field: &str, words: fn(&Value) -> String) -> anyhow::Result<()> {
        self.print(&Value::Array(self.client.pages(path, field)?), words)
    }

    /// Says that something was done that has no answer of its own.
    fn done(&self, answer: Value, words: &str) -> anyhow::Result<()> {
        let answer = if answer.is_null() { json!({"done": words}) } else { answer };
        self.print(&answer, |_| words.to_owned())
    }

    fn join(&self, stream: &str, how: &str, stop: bool) -> anyhow::Result<()> {
        let id = self.client.stream(stream)?;
        let path = format!("/streams/{id}/{how}");
        if stop {
            return self.done(self.client.delete(&path)?, "left");
        }
        self.print(&self.client.post(&path, None)?, show::urls)
    }

    fn stream(&self, verb: StreamVerb) -> anyhow::Result<()> {
        let patch = |stream: &str, change: Value| {
            let id = self.client.stream(stream)?;
            self.print(&self.client.patch(&format!("/streams/{id}"), &change)?, show::stream)
        };
        match verb {
            StreamVerb::Show { stream } => {
                let id = self.client.stream(&stream)?;
                let mut shown = self.client.get(&format!("/streams/{id}"))?;
                shown["stats"] = self.client.get(&format!("/streams/{id}/stats"))?;
                self.print(&shown, show::stream)
            }
            StreamVerb::Create {
                name,
                source,
                words,
                stripes,
                picture,
                renditions,
                adaptive,
                preview,
            } => {
                let mut new = words.fields();
                new.insert("preview".into(), preview.into());
                new.insert("name".into(), name.into());
                new.insert("source".into(), source.into());
                if let Some(stripes) = stripes {
                    new.insert("stripes".into(), stripes.into());
                }
                if picture.size.is_some() {
                    let (width, height) = picture.size();
                    new.insert("width".into(), width.into());
                    new.insert("height".into(), height.into());
                }
                if picture.fps.is_some() {
                    new.insert("fps".into(), picture.fps().into());
                }
                if picture.bitrate.is_some() {
                    new.insert("bitrate_bps".into(), picture.bitrate().as_bps().into());
                }
                let heights: Vec<u32> = renditions.into_iter().map(Height::pixels).collect();
                new.insert("renditions".into(), heights.into());
                new.insert("adaptive".into(), adaptive.into());
                self.print(&self.client.post("/streams", Some(&new.into()))?, show::urls)
            }
            StreamVerb::Edit { stream, words } => {
                let change = words.fields();
                if change.is_empty() {
                    bail!(super::output::Usage(
                        "say what to change: --title, --description or --tag".into()
                    ));
                }
                patch(&stream, change.into())
            }
            StreamVerb::Live { stream } => patch(&stream, json!({"preview": false})),
            StreamVerb::Pause { stream } => patch(&stream, json!({"paused": true})),
            StreamVerb::Resume { stream } => patch(&stream, json!({"paused": false})),
            StreamVerb::Record { stream, stop, format } => {
                let path = format!("/streams/{}/record", self.client.stream(&stream)?);
                let answer = if stop {
                    self.client.delete(&path)?
                } else {
                    self.client.post(&path, Some(&json!({"format": format})))?
                };
                self.print(&answer, show::recording)
            }
            StreamVerb::Stop { stream } => {
                let id = self.client.stream(&stream)?;
                self.done(self.client.delete(&format!("/streams/{id}"))?, "ended")
            }
        }
    }

    fn settings(
        &self,
        uplink: Option<String>,
        max_copies: Option<String>,
        max_total_copies: Option<String>,
    ) -> anyhow::Result<()> {
        let number = |text: String| -> anyhow::Result<Value> {
            let number: u32 = text
                .parse()
                .map_err(|_| super::output::Usage(format!("{text}: a number, or none")))?;
            Ok(number.into())
        };
        let mut change = Map::new();
        for (field, given, is_rate) in [
            ("uplink", uplink, true),
            ("max_copies", max_copies, false),
            ("max_total_copies", max_total_copies, false),
        ] {
            let value = match given {
                None => continue,
                Some(none) if none == "none" => Value::Null,
                Some(rate) if is_rate => rate.into(),
                Some(copies) => number(copies)?,
            };
            change.insert(field.into(), value);
        }
        let settings = if change.is_empty() {
            self.client.get("/settings")?
        } else {
            self.client.patch("/settings", &change.into())?
        };
        self.print(&settings, show::settings)
    }

    fn doctor(&self) -> anyhow::Result<()> {
        let report = self.client.get("/doctor")?;
        self.print(&report, show::doctor)?;
        if report["ok"] == true { Ok(()) } else { bail!("something above is wrong") }
    }

    fn events(&self, count: Option<u64>) -> anyhow::Result<()> {
        let lines = self.client.lines("/events")?;
        let wanted = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        for line in lines.take(wanted) {
            print(&line?)?;
        }
        Ok(())
    }
}

/// Prints a line; when nobody reads any more, the command is over and well.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}
