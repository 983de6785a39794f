//! `WS /live/{id}`: FLV bytes in binary frames, for pages that play with Media Source Extensions.
//!
//! Owns one player's socket. Does not own the route nor its access rule (see `http_flv`).

use std::time::Duration;

use axum::{
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use bytes::Bytes;
use tokio::time::timeout;

use super::{http_flv::Output, local::Gate};

/// A frame that a player does not take within this ends it. Long before, the node has moved the
/// player to a newer keyframe.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Players have nothing to say; what they do say is read over.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024;

/// Answers the upgrade and sends `first`, then the rest of `output`.
pub(super) fn answer(socket: WebSocketUpgrade, output: Output, first: Bytes) -> Response {
    socket
        .protocols([Gate::WS_PROTOCOL])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| send(socket, output, first))
}

async fn send(mut socket: WebSocket, mut output: Output, first: Bytes) {
    let mut next = Some(first);
    while let Some(bytes) = next.take() {
        let sent = timeout(WRITE_MAX, socket.send(Message::Binary(bytes))).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("a page took nothing for {WRITE_MAX:?} or is gone");
            return;
        }
        next = loop {
            tokio::select! {
                bytes = output.next() => break bytes,
                said = socket.recv() => match said {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        };
    }
    let over = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::from_static("over") };
    // The player may be gone already.
    let _ = timeout(WRITE_MAX, socket.send(Message::Close(Some(over)))).await;
}
