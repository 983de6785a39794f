//! How the web app gets the token: by a link that works once.
//!
//! Owns the codes and their end. Does not own the token. The code stands behind a `#`, so that no
//! browser sends it, logs it or leaks it as a referrer; the page exchanges it by a POST.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State, http::StatusCode};
use tokio::time::Instant;

use super::{
    body::Body,
    dto::{LinkDto, SessionDto, SessionRequest},
    error::Problem,
    state::Api,
};
use crate::edge::local::Secret;

/// Until a link is of no use.
pub const LINK_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Links that wait to be opened; a further one takes the oldest one's place.
pub const LINKS_MAX: usize = 16;
/// Random bytes in a code: nobody guesses it within its life.
const CODE_BYTES: usize = 16;

/// The links that wait to be opened. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Links {
    waiting: Arc<Mutex<VecDeque<(Secret, Instant)>>>,
}

impl Links {
    /// A new code.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn create(&self) -> Result<String, NoRandomness> {
        let mut bytes = [0; CODE_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
        let code = data_encoding::HEXLOWER.encode(&bytes);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= LINKS_MAX {
            waiting.pop_front();
        }
        waiting.push_back((Secret::new(&code), Instant::now() + LINK_LIFETIME));
        Ok(code)
    }

    /// Takes `code` back, once; false when it was never given, used or expired.
    #[must_use]
    pub fn redeem(&self, code: &str) -> bool {
        let now = Instant::now();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, until)| *until > now);
        let at = waiting.iter().position(|(secret, _)| secret.matches(code));
        at.is_some_and(|at| waiting.remove(at).is_some())
    }
}

/// The system gives no random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the system gives no random bytes for a link")]
pub struct NoRandomness;

/// Exchanges a one-time code for the token. The only change that takes no token.
#[utoipa::path(post, path = "/session", tag = "access", request_body = SessionRequest, responses(
    (status = 200, description = "The token", body = SessionDto),
    (status = 401, description = "The code is wrong, used or expired"),
))]
pub(super) async fn open(
    State(api): State<Api>,
    Body(request): Body<SessionRequest>,
) -> Result<Json<SessionDto>, Problem> {
    if api.links.redeem(&request.code) {
        return Ok(Json(SessionDto { token: api.token.as_str().to_owned() }));
    }
    let detail = "this link was used already or has expired: `astral ctl web` prints a new one";
    Err(Problem::new(StatusCode::UNAUTHORIZED, "link_used", detail))
}

/// Whether a kept token is still good.
#[utoipa::path(get, path = "/session", tag = "access", security(("token" = [])), responses(
    (status = 204, description = "It is"),
    (status = 401, description = "It is not"),
))]
pub(super) async fn check(
    State(api): State<Api>,
    headers: axum::http::HeaderMap,
) -> Result<StatusCode, Problem> {
    if api.gate.authorised(&headers) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::unauthorized())
    }
}

/// A link that opens the web app in another browser.
#[utoipa::path(post, path = "/links", tag = "access", security(("token" = [])), responses(
    (status = 201, description = "The link", body = LinkDto),
))]
pub(super) async fn create(State(api): State<Api>) -> Result<(StatusCode, Json<LinkDto>), Problem> {
    let url = api.web_link().map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string())
    })?;
    Ok((StatusCode::CREATED, Json(LinkDto { url, expires_in_s: LINK_LIFETIME.as_secs() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_code_works_once_and_not_for_ever() {
        let links = Links::default();
        let code = links.create().unwrap();
        assert!(!links.redeem("0123456789abcdef0123456789abcdef"));
        assert!(links.redeem(&code));
        assert!(!links.redeem(&code), "it was used");
        let late = links.create().unwrap();
        tokio::time::advance(LINK_LIFETIME).await;
        assert!(!links.redeem(&late), "it has expired");
    }

    #[tokio::test]
    async fn links_that_nobody_opens_are_bounded() {
        let links = Links::default();
        let first = links.create().unwrap();
        for _ in 0..LINKS_MAX {
            links.create().unwrap();
        }
        assert_eq!(links.waiting.lock().unwrap().len(), LINKS_MAX);
        assert!(!links.redeem(&first), "the oldest made room");
    }
}
