//! Small pictures of streams, over `/astral/picture/1`.
//!
//! Owns the codec and the pictures that are kept. Does not own how a picture is made (whoever starts
//! the node says, see [`PictureMaker`]), who is asked for one (`search`) nor where it is shown. A
//! picture's hash is in the signed announcement, so that anybody may hand it on.

mod search;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use astral_core::{ids::StreamId, media::flv::Codec};
use bytes::Bytes;
use libp2p::{
    StreamProtocol,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    request_response,
};

pub(super) use self::search::PictureDesk;

/// Largest picture, in bytes: 320 x 180 pixels take 6 KB as a rule, 20 KB at worst.
pub const PICTURE_BYTES_MAX: usize = 24 * 1_024;
/// Pictures of others that are kept: 6 MiB at worst.
pub const PICTURES_KEPT_MAX: usize = 256;
/// What a JPEG begins with.
const JPEG_BEGINS: &[u8] = b"\xff\xd8\xff";
/// A question: flags, stream, hash.
const WANT_BYTES: usize = 1 + 32 + 32;
/// The flag with which the asked one may ask another.
const MAY_ASK: u8 = 1;

/// Makes a JPEG of at most [`PICTURE_BYTES_MAX`] bytes from a decoder configuration and a keyframe of a
/// codec, as FLV has them; `None` when it can't. Blocks.
#[derive(Clone)]
pub struct PictureMaker(Arc<Make>);

type Make = dyn Fn(Codec, Bytes, Bytes) -> Option<Bytes> + Send + Sync;

impl PictureMaker {
    /// From a function that may block.
    pub fn new(
        make: impl Fn(Codec, Bytes, Bytes) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }

    /// Makes one, unless it comes out too large.
    pub(super) fn make(&self, codec: Codec, config: Bytes, keyframe: Bytes) -> Option<Bytes> {
        (self.0)(codec, config, keyframe).filter(|picture| picture.len() <= PICTURE_BYTES_MAX)
    }
}

impl fmt::Debug for PictureMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PictureMaker")
    }
}

/// blake3 of a picture.
pub type PictureHash = [u8; 32];

/// Whether this is what was announced, and what pages take for a picture: nothing else is kept, shown
/// or handed on.
fn is_announced(picture: &[u8], hash: &PictureHash) -> bool {
    picture.starts_with(JPEG_BEGINS) && blake3::hash(picture).as_bytes() == hash
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureWant {
    /// Whoever is asked may ask the publishing node, when it has none.
    may_ask: bool,
    stream: StreamId,
    hash: PictureHash,
}

impl PictureWant {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let (stream, hash) = rest.split_first_chunk::<32>()?;
        let hash = hash.try_into().ok()?;
        Some(Self { may_ask: flags & MAY_ASK != 0, stream: StreamId(*stream), hash })
    }

    fn encode(&self) -> [u8; WANT_BYTES] {
        let mut bytes = [0; WANT_BYTES];
        let (flags, rest) = bytes.split_at_mut(1);
        let (stream, hash) = rest.split_at_mut(32);
        flags.fill(u8::from(self.may_ask) * MAY_ASK);
        stream.copy_from_slice(&self.stream.0);
        hash.copy_from_slice(&self.hash);
        bytes
    }
}

/// Reads a question as it comes from others: a fuzz target.
#[cfg(test)]
fn fuzz(data: &[u8]) {
    if let Some(want) = PictureWant::decode(data) {
        assert_eq!(data.len(), WANT_BYTES);
        assert_eq!(PictureWant::decode(&want.encode()), Some(want));
    }
}

/// How pictures travel: one message, then the end of the stream. An empty answer is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureCodec;

impl request_response::Codec for PictureCodec {
    type Protocol = StreamProtocol;
    type Request = PictureWant;
    type Response = Bytes;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<PictureWant>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read(io, WANT_BYTES).await?;
        PictureWant::decode(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, PICTURE_BYTES_MAX).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        want: PictureWant,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&want.encode()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        picture: Bytes,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&picture).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells "too long" from "just fits".
    io.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes.into())
}

/// The pictures that a node has.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    kept: Mutex<Kept>,
    maker: Option<PictureMaker>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Of the streams published here: the newest of each.
    own: BTreeMap<StreamId, (PictureHash, Bytes)>,
    others: BTreeMap<PictureHash, Bytes>,
    /// The others', oldest first.
    order: VecDeque<PictureHash>,
}

impl Pictures {
    pub(super) fn new(maker: Option<PictureMaker>) -> Self {
        Self { kept: Mutex::default(), maker }
    }

    /// What makes a picture of the streams published here; without it they have none.
    pub(super) const fn maker(&self) -> Option<&PictureMaker> {
        self.maker.as_ref()
    }

    /// Keeps the newest picture of a stream published here; its hash. The one before stays for a
    /// while: others learn of the new one seconds later.
    pub(super) fn put_own(&self, stream: StreamId, picture: Bytes) -> PictureHash {
        let hash = *blake3::hash(&picture).as_bytes();
        let before = self.lock().own.insert(stream, (hash, picture));
        if let Some((hash, picture)) = before {
            self.put(hash, picture);
        }
        hash
    }

    /// A stream published here is over.
    pub(super) fn forget(&self, stream: StreamId) {
        self.lock().own.remove(&stream);
    }

    fn put(&self, hash: PictureHash, picture: Bytes) {
        let mut kept = self.lock();
        if kept.others.insert(hash, picture).is_none() {
            kept.order.push_back(hash);
        }
        while kept.order.len() > PICTURES_KEPT_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.others.remove(&oldest);
            }
        }
    }

    fn get(&self, want: &PictureWant) -> Option<Bytes> {
        let kept = self.lock();
        let own = kept.own.get(&want.stream).filter(|(hash, _)| *hash == want.hash);
        own.map(|(_, picture)| picture).or_else(|| kept.others.get(&want.hash)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{futures::io::Cursor, request_response::Codec};

    use super::*;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");
    const WANT: PictureWant =
        PictureWant { may_ask: true, stream: StreamId([1; 32]), hash: [2; 32] };

    #[tokio::test]
    async fn a_question_and_an_answer_survive_the_stream() {
        let mut bytes = Cursor::new(Vec::new());
        PictureCodec.write_request(&PROTOCOL, &mut bytes, WANT).await.unwrap();
        let golden = [&[1][..], &[1; 32], &[2; 32]].concat();
        assert_eq!(bytes.get_ref(), &golden);
        bytes.set_position(0);
        assert_eq!(PictureCodec.read_request(&PROTOCOL, &mut bytes).await.unwrap(), WANT);
        let mut bytes = Cursor::new(vec![7; PICTURE_BYTES_MAX]);
        let picture = PictureCodec.read_response(&PROTOCOL, &mut bytes).await.unwrap();
        assert_eq!(picture.len(), PICTURE_BYTES_MAX);
    }

    #[tokio::test]
    async fn what_is_too_long_is_read_no_further_than_the_bound() {
        let mut bytes = Cursor::new(vec![1; 16 << 20]);
        assert!(PictureCodec.read_request(&PROTOCOL, &mut bytes).await.is_err());
        assert_eq!(bytes.position(), WANT_BYTES as u64 + 1);
        let mut bytes = Cursor::new(vec![1; 16 << 20]);
        assert!(PictureCodec.read_response(&PROTOCOL, &mut bytes).await.is_err());
        assert_eq!(bytes.position(), PICTURE_BYTES_MAX as u64 + 1);
    }

    #[test]
    fn pictures_of_others_are_bounded_and_own_ones_stay() {
        let pictures = Pictures::default();
        let own = pictures.put_own(WANT.stream, Bytes::from_static(b"own"));
        for n in 0..=PICTURES_KEPT_MAX {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            pictures.put(hash, Bytes::from_static(b"other"));
        }
        let get = |hash| pictures.get(&PictureWant { hash, ..WANT });
        assert_eq!(get(own), Some(Bytes::from_static(b"own")));
        assert_eq!(get([0; 32]), None, "the oldest made room");
        assert_eq!(pictures.lock().others.len(), PICTURES_KEPT_MAX);
        pictures.forget(WANT.stream);
        assert_eq!(get(own), None);
    }

    #[test]
    fn a_picture_that_was_replaced_is_still_given_to_those_who_know_the_old_one() {
        let pictures = Pictures::default();
        let old = pictures.put_own(WANT.stream, Bytes::from_static(b"old"));
        let new = pictures.put_own(WANT.stream, Bytes::from_static(b"new"));
        let get = |hash| pictures.get(&PictureWant { hash, ..WANT });
        assert_eq!(get(old), Some(Bytes::from_static(b"old")));
        assert_eq!(get(new), Some(Bytes::from_static(b"new")));
    }

    #[test]
    fn only_a_jpeg_with_the_announced_hash_is_a_picture() {
        let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
        let (jpeg, page) = (b"\xff\xd8\xff\xe0JFIF", b"<script>");
        assert!(is_announced(jpeg, &hash(jpeg)));
        assert!(!is_announced(jpeg, &hash(b"another")));
        assert!(!is_announced(page, &hash(page)));
        assert!(!is_announced(b"", &hash(b"")));
    }

    #[test]
    fn no_bytes_of_a_question_panic() {
        let mut seed = 7_u64;
        for n in 0..20_000 {
            let bytes: Vec<u8> = (0..n % (WANT_BYTES + 8))
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed.to_be_bytes()[0]
                })
                .collect();
            fuzz(&bytes);
        }
    }
}
