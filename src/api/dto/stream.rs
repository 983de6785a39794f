//! Streams: known, new, changed, and where they are played.
//!
//! Owns their JSON. Does not own what flows in them (see `stats`).

use astral_core::{
    announcement::Rendition,
    ids::{NodeId, StreamId},
    overlay::{Interest, Snapshot, StreamView, WatchView},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::record::RecordingDto;

/// `GET /streams`.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct StreamsDto {
    /// Known streams, in the order of their ids.
    pub streams: Vec<StreamDto>,
    /// The next page's `after`; null on the last page.
    pub next: Option<String>,
}

/// What this node has to do with a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamRole {
    /// It is in the directory, no more.
    Listed,
    /// Published here.
    Publishing,
    /// Watched here.
    Watching,
    /// Forwarded here without a player.
    Seeding,
}

/// One stream.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct StreamDto {
    /// Its id.
    #[schema(value_type = String)]
    pub id: StreamId,
    /// Its link; null for a watched stream whose announcement has not come.
    pub link: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// A line for people.
    pub title: String,
    /// A paragraph for people.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Codec names.
    pub codecs: Vec<String>,
    /// Picture width in pixels.
    pub width: Option<u16>,
    /// Picture height in pixels.
    pub height: Option<u16>,
    /// Bit rate; 0 before the first media.
    pub bitrate_bps: u64,
    /// Number of stripes; 0 before the first media.
    pub stripes: u8,
    /// Epoch of the source.
    pub epoch: u64,
    /// Revision of the announcement.
    pub revision: u64,
    /// The publishing node.
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// Viewers and seeders that this node's supernode knows of, or this node if it is one.
    pub viewers: u32,
    /// What this node has to do with it.
    pub role: StreamRole,
    /// It is announced, so others can find it.
    pub announced: bool,
    /// Published by this node, so it can be changed and ended here.
    pub own: bool,
    /// Its source pauses, as far as this node knows.
    pub paused: bool,
    /// Published by this node and not announced yet: this machine alone sees it.
    pub preview: bool,
    /// The recording that the API started; null when there is none.
    pub recording: Option<RecordingDto>,
    /// Where a player on this machine opens it.
    pub http_flv: String,
    /// The same as HLS.
    pub hls: String,
    /// Where its small picture is on this node; null when it has none.
    pub thumbnail: Option<String>,
    /// Its lower renditions, the best first.
    pub renditions: Vec<RenditionDto>,
    /// Height of the lower rendition that players here get; null when it is the source's own.
    pub rendition: Option<u16>,
}

/// A lower rendition of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct RenditionDto {
    /// The stream that it is; its URLs play this rendition alone.
    #[schema(value_type = String)]
    pub id: StreamId,
    /// Picture height in pixels.
    pub height: u16,
    /// Bit rate.
    pub bitrate_bps: u64,
}

impl From<&Rendition> for RenditionDto {
    fn from(one: &Rendition) -> Self {
        Self { id: one.stream, height: one.height, bitrate_bps: one.rate.as_bps() }
    }
}

/// `GET /streams/{id}/url` (with the token) and the answer to `POST /streams`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct UrlDto {
    /// Which stream.
    #[schema(value_type = String)]
    pub id: StreamId,
    /// Its link.
    pub link: Option<String>,
    /// Where a player on this machine opens it.
    pub http_flv: String,
    /// The same as HLS.
    pub hls: String,
    /// The same as RTMP.
    pub rtmp: String,
    /// Where a page reads it over a WebSocket.
    pub ws_flv: String,
    /// Where a page fills it over a WebSocket; only for `"source": "browser"`.
    pub ws_publish: Option<String>,
    /// Where its encoder publishes, key included; only for streams that wait for one here.
    pub publish_url: Option<String>,
}

/// `POST /streams`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewStream {
    /// Its name, 1 to 128 characters.
    #[schema(min_length = 1, max_length = 128)]
    pub name: String,
    /// A line for people; its name when absent.
    #[serde(default)]
    pub title: Option<String>,
    /// A paragraph for people.
    #[serde(default)]
    pub description: String,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// 1, 2, 4, 8 or 16; chosen by rate when absent.
    #[serde(default)]
    pub stripes: Option<u8>,
    /// Shown on this machine alone until `PATCH` says `"preview": false`.
    #[serde(default)]
    pub preview: bool,
    /// Where its media comes from: one of the `sources` that `GET /node` lists, such as `rtmp`.
    pub source: String,
    /// The camera, for `"source": "camera"`; the first one when absent.
    #[serde(default)]
    pub device: Option<String>,
    /// The microphone, `default` or `none`, for cameras and screens; `default` when absent.
    #[serde(default)]
    pub mic: Option<String>,
    /// Picture width in pixels, for what this node captures.
    #[serde(default)]
    #[schema(minimum = 16, maximum = 8_192)]
    pub width: Option<u16>,
    /// Picture height in pixels, for what this node captures.
    #[serde(default)]
    #[schema(minimum = 16, maximum = 8_192)]
    pub height: Option<u16>,
    /// Frames a second, for what this node captures.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 120)]
    pub fps: Option<u8>,
    /// Video bit rate, for what this node captures.
    #[serde(default)]
    #[schema(minimum = 50_000, maximum = 100_000_000)]
    pub bitrate_bps: Option<u32>,
    /// The encoder follows the uplink, for what this node captures: lower while one copy does not fit.
    #[serde(default)]
    pub adaptive: bool,
    /// Heights of lower renditions (720, 480, 360, 240) published beside it, for what this node captures.
    #[serde(default)]
    #[schema(max_items = 4)]
    pub renditions: Vec<u16>,
}

/// `PATCH /streams/{id}`: what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamPatch {
    /// A line for people.
    pub title: Option<String>,
    /// A paragraph for people.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: Option<Vec<String>>,
    /// Pauses the stream for everybody, or lets it go on.
    pub paused: Option<bool>,
    /// `false` ends the preview: the stream goes live with its next keyframe. There is no way back.
    pub preview: Option<bool>,
}

impl StreamPatch {
    /// Whether it changes what is announced.
    #[must_use]
    pub const fn is_edit(&self) -> bool {
        self.title.is_some() || self.description.is_some() || self.tags.is_some()
    }
}

impl StreamRole {
    /// What the node of a snapshot has to do with `id`; `None` when nothing at all.
    #[must_use]
    pub fn of(id: StreamId, overlay: &Snapshot) -> Option<Self> {
        if overlay.publishing.contains(&id) {
            return Some(Self::Publishing);
        }
        if let Some(watch) = watch_of(id, overlay) {
            return Some(match watch.kind {
                Interest::Play => Self::Watching,
                Interest::Seed => Self::Seeding,
            });
        }
        overlay.streams.iter().any(|view| view.stream == id).then_some(Self::Listed)
    }
}

/// Where players on this machine open a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Play {
    /// As HTTP-FLV.
    pub http_flv: String,
    /// As HLS.
    pub hls: String,
}

impl StreamDto {
    /// A stream that is announced.
    #[must_use]
    pub fn announced(view: &StreamView, role: StreamRole, link: String, play: Play) -> Self {
        Self {
            id: view.stream,
            link: Some(link),
            name: Some(view.name.clone()),
            title: view.title.clone(),
            description: view.description.clone(),
            tags: view.tags.clone(),
            codecs: view.codecs.clone(),
            width: view.resolution.map(|size| size.width),
            height: view.resolution.map(|size| size.height),
            bitrate_bps: view.rate.as_bps(),
            stripes: view.k,
            epoch: view.epoch,
            revision: view.revision,
            node: Some(view.node),
            viewers: view.viewers,
            role,
            announced: true,
            own: view.mine,
            paused: false,
            preview: false,
            recording: None,
            http_flv: play.http_flv,
            hls: play.hls,
            thumbnail: view
                .thumbnail
                .then(|| format!("/api/v1/streams/{}/thumbnail.jpg", view.stream)),
            renditions: view.renditions.iter().map(RenditionDto::from).collect(),
            rendition: None,
        }
    }

    /// A stream that is not announced: one that waits for its encoder, or one watched by its id
    /// whose announcement has not come.
    #[must_use]
    pub fn unannounced(id: StreamId, role: StreamRole, play: Play) -> Self {
        Self {
            id,
            link: None,
            name: None,
            title: String::new(),
            description: String::new(),
            tags: Vec::new(),
            codecs: Vec::new(),
            width: None,
            height: None,
            bitrate_bps: 0,
            stripes: 0,
            epoch: 0,
            revision: 0,
            node: None,
            viewers: 0,
            role,
            announced: false,
            own: false,
            paused: false,
            preview: false,
            recording: None,
            http_flv: play.http_flv,
            hls: play.hls,
            thumbnail: None,
            renditions: Vec::new(),
            rendition: None,
        }
    }

    /// What has to be the same when the stream is changed: its announcement and its pause.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}.{}.{}\"", self.epoch, self.revision, u8::from(self.paused))
    }

    /// Whether every word of `query` is in its name, title, description or tags.
    #[must_use]
    pub fn has_words(&self, query: &str) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        let text = [name, &self.title, &self.description, &self.tags.join(" ")].join(" ");
        let text = text.to_lowercase();
        query.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// The watch of `id`, if there is one.
pub(super) fn watch_of(id: StreamId, overlay: &Snapshot) -> Option<&WatchView> {
    overlay.watches.iter().find(|watch| watch.stream == id)
}
