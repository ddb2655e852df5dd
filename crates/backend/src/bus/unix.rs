//! The bus over Unix sockets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::codec::FramedRead;

use super::frame::{self, Frame, Hello, TOPIC_BYTES_MAX};
use super::topic::{Next, Topic};
use super::{Bus, LOG_MESSAGES, Message, PAYLOAD_BYTES_MAX, Retention, Subscription};

/// Messages published while one write to a subscriber makes no progress, before it is cut off. It then finds what
/// it missed still retained when it comes back: a batch and this many are less than the log.
const LAG_MESSAGES_MAX: u64 = 128;
const _: () = assert!(LAG_MESSAGES_MAX as usize + 32 < LOG_MESSAGES);
/// Messages read and not yet taken by a subscriber's owner. When they are not taken the socket fills, and the
/// publisher cuts the subscriber off in the end.
const INBOX_MESSAGES: usize = 32;
/// Subscribers at one publisher.
const SUBSCRIBERS_MAX: usize = 1_024;
/// Topics at one publisher. A subscriber cannot bring a new one into being beyond this.
const TOPICS_MAX: usize = 4_096;
/// Longest time from the connection to the subscriber's request.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before a reconnection, jittered downwards by up to half.
const PAUSE_FIRST: Duration = Duration::from_millis(40);
const PAUSE_LAST: Duration = Duration::from_millis(500);

/// What a bus has counted since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixBusStats {
    /// Messages published.
    pub published: u64,
    /// Messages refused: too large, a number that did not ascend, or one topic too many.
    pub refused: u64,
    /// Subscribers connected now.
    pub subscribers: u64,
    /// Subscribers cut off because they lagged.
    pub cut_off: u64,
}

/// The bus of one machine. Cloning is cheap; the socket is closed with the last clone.
#[derive(Clone, Debug)]
pub struct UnixBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    directory: Arc<Directory>,
    publisher: Arc<Publisher>,
    runtime: Handle,
    accept: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl UnixBus {
    /// Binds `{directory}/{name}.sock` (a socket file left there by an earlier process is replaced) and begins to
    /// serve subscribers on the current runtime. The directory is created if it is missing; its path may be longer
    /// than a socket address.
    ///
    /// # Errors
    /// If the directory cannot be opened or the socket cannot be bound, or if `name` is not `[a-z0-9-]{1,32}`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(directory: &Path, name: &str) -> io::Result<Self> {
        if !is_peer(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} cannot name a peer")));
        }
        let directory = Arc::new(Directory::open(directory)?);
        let listener = directory.listen(name)?;
        let publisher = Arc::new(Publisher::default());
        let runtime = Handle::current();
        let accept = runtime.spawn(accept(listener, publisher.clone())).abort_handle();
        Ok(Self { inner: Arc::new(Inner { name: name.to_owned(), directory, publisher, runtime, accept }) })
    }

    /// What `peer` retains of a log topic from number `from` on, as far as it arrives within `patience`: all of it
    /// if the peer is well, nothing if it is not there.
    pub async fn fetch(&self, peer: &str, topic: &str, from: u64, patience: Duration) -> Vec<Message> {
        let mut messages = Vec::new();
        let hello = Hello { topic: topic.to_owned(), from: Some(from) };
        let reading = async {
            let Ok(mut source) = Source::connect(&self.inner.directory, peer, &hello).await else { return };
            while let Some(Frame::Message(message)) = source.next().await {
                messages.push(message);
            }
        };
        // Whatever came in time counts.
        let _ = timeout(patience, reading).await;
        messages
    }

    /// Counters.
    pub fn stats(&self) -> UnixBusStats {
        let publisher = &self.inner.publisher;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UnixBusStats {
            published: count(&publisher.published),
            refused: count(&publisher.refused),
            subscribers: (SUBSCRIBERS_MAX - publisher.places.available_permits()) as u64,
            cut_off: count(&publisher.cut_off),
        }
    }
}

impl Bus for UnixBus {
    fn publish(&self, topic: &str, sequence: u64, payload: Bytes) {
        let publisher = &self.inner.publisher;
        let accepted = payload.len() <= PAYLOAD_BYTES_MAX
            && publisher.topic(topic).is_some_and(|topic| topic.publish(Message { sequence, payload }));
        let counter = if accepted { &publisher.published } else { &publisher.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        if !accepted {
            tracing::debug!(topic, sequence, "message refused by the bus");
        }
    }

    fn retire(&self, topic: &str) {
        if let Some(topic) = self.inner.publisher.topics().remove(topic) {
            topic.retire();
        }
    }

    fn subscribe(&self, peer: &str, topic: &str, from: Option<u64>) -> Subscription {
        let (inbox, messages) = mpsc::channel(INBOX_MESSAGES);
        let (says_connected, connected) = watch::channel(false);
        let follower = Follower {
            directory: self.inner.directory.clone(),
            peer: peer.to_owned(),
            hello: Hello { topic: topic.to_owned(), from },
            inbox,
            connected: says_connected,
        };
        let task = self.inner.runtime.spawn(follower.run()).abort_handle();
        Subscription { messages, connected, task }
    }

    fn peers(&self) -> Vec<String> {
        let mut peers = self.inner.directory.peers().unwrap_or_default();
        peers.retain(|peer| *peer != self.inner.name);
        peers
    }
}

fn is_peer(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Removes the sockets of whoever was on the bus in `directory`. For when nobody can be: each makes its own.
pub fn forget_peers(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("sock".as_ref()))
    {
        std::fs::remove_file(path).ok();
    }
}

/// The directory of sockets, held open: a socket address holds 108 bytes, which a data directory's path may exceed,
/// so sockets are reached through `/proc/self/fd`.
#[derive(Debug)]
struct Directory {
    file: File,
}

impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, path.display().to_string()));
        }
        Ok(Self { file })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    fn socket(&self, peer: &str) -> PathBuf {
        self.path().join(format!("{peer}.sock"))
    }

    /// Binds under a name of its own and renames, so that at no moment there is no socket.
    fn listen(&self, name: &str) -> io::Result<UnixListener> {
        let bound = self.path().join(format!(".{name}.{}", std::process::id()));
        if let Err(error) = std::fs::remove_file(&bound)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = StdListener::bind(&bound)?;
        std::fs::rename(&bound, self.socket(name))?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }

    fn peers(&self) -> io::Result<Vec<String>> {
        let mut peers = Vec::new();
        for entry in std::fs::read_dir(self.path())? {
            let name = entry?.file_name();
            let peer = name.to_str().and_then(|name| name.strip_suffix(".sock"));
            peers.extend(peer.filter(|peer| is_peer(peer)).map(str::to_owned));
        }
        peers.sort();
        Ok(peers)
    }
}

/// The publishing side: topics, and the counters of those who follow them.
#[derive(Debug)]
struct Publisher {
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
    places: Arc<Semaphore>,
    published: AtomicU64,
    refused: AtomicU64,
    cut_off: AtomicU64,
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            topics: Mutex::default(),
            places: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }
}

impl Publisher {
    fn topics(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Topic>>> {
        // Nothing that can panic happens under the lock.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic of this name, made if there is room. Those who subscribe before the first message make it too.
    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let mut topics = self.topics();
        if let Some(topic) = topics.get(name) {
            return Some(topic.clone());
        }
        if topics.len() >= TOPICS_MAX || name.len() > TOPIC_BYTES_MAX {
            return None;
        }
        let topic = Arc::new(Topic::new(Retention::of(name)));
        topics.insert(name.to_owned(), topic.clone());
        Some(topic)
    }
}

async fn accept(listener: UnixListener, publisher: Arc<Publisher>) {
    let mut subscribers = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = subscribers.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match publisher.places.clone().try_acquire_owned() {
                    Ok(place) => _ = subscribers.spawn(serve(stream, publisher.clone(), place)),
                    Err(_) => tracing::warn!("the bus has no place for another subscriber"),
                },
                Err(error) => {
                    tracing::warn!(%error, "the bus cannot accept");
                    sleep(PAUSE_LAST).await;
                }
            },
        }
    }
}

/// Serves one subscriber until it goes, lags too far, or its topic is retired.
async fn serve(stream: UnixStream, publisher: Arc<Publisher>, _place: OwnedSemaphorePermit) {
    let (mut reader, mut writer) = stream.into_split();
    let Some(hello) = read_hello(&mut reader).await else { return };
    let Some(topic) = publisher.topic(&hello.topic) else { return };
    let mut published = topic.watch();
    let mut cursor = topic.cursor(hello.from);
    let mut caught_up = false;
    loop {
        published.mark_unchanged();
        let sent = match topic.take(&mut cursor) {
            Next::Messages(messages) => write_messages(&mut writer, &messages, published.clone()).await,
            Next::Wait { next } if !caught_up => {
                caught_up = true;
                write_all(&mut writer, frame::caught_up(next), published.clone()).await
            }
            Next::Wait { .. } => tokio::select! {
                changed = published.changed() => changed.map_err(|_| Ended::Gone),
                // A subscriber says nothing after its request: whatever is to read is its end.
                _ = reader.read_u8() => Err(Ended::Gone),
            },
            Next::Lost => Err(Ended::Lagged),
            Next::Retired => Err(Ended::Gone),
        };
        match sent {
            Ok(()) => {}
            Err(Ended::Gone) => return,
            Err(Ended::Lagged) => {
                publisher.cut_off.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(topic = hello.topic, "a subscriber of the bus lagged and was cut off");
                return;
            }
        }
    }
}

/// Why a subscriber is served no longer.
enum Ended {
    Gone,
    Lagged,
}

async fn read_hello(reader: &mut OwnedReadHalf) -> Option<Hello> {
    let mut frames = FramedRead::new(reader, frame::hello_codec());
    let bytes = timeout(HELLO_TIMEOUT, frames.next()).await.ok()??.ok()?;
    Hello::decode(&bytes)
}

async fn write_messages(
    writer: &mut OwnedWriteHalf,
    messages: &[Message],
    published: watch::Receiver<u64>,
) -> Result<(), Ended> {
    for message in messages {
        let bytes = frame::message_head(message).chain(message.payload.clone());
        write_all(writer, bytes, published.clone()).await?;
    }
    Ok(())
}

/// Writes everything, unless too many messages are published while it waits. Counted in messages, not in seconds: a
/// stopped subscriber of a topic on which nothing happens does no harm.
async fn write_all(
    writer: &mut OwnedWriteHalf,
    mut bytes: impl bytes::Buf,
    mut published: watch::Receiver<u64>,
) -> Result<(), Ended> {
    let limit = published.borrow().saturating_add(LAG_MESSAGES_MAX);
    tokio::select! {
        biased;
        written = writer.write_all_buf(&mut bytes) => written.map_err(|_| Ended::Gone),
        _ = published.wait_for(|count| *count > limit) => Err(Ended::Lagged),
    }
}

/// A connection to a publisher.
struct Source {
    frames: FramedRead<OwnedReadHalf, tokio_util::codec::LengthDelimitedCodec>,
    _writer: OwnedWriteHalf,
}

impl Source {
    async fn connect(directory: &Directory, peer: &str, hello: &Hello) -> io::Result<Self> {
        if !is_peer(peer) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (reader, mut writer) = UnixStream::connect(directory.socket(peer)).await?.into_split();
        writer.write_all(&hello.encode()).await?;
        Ok(Self { frames: FramedRead::new(reader, frame::frame_codec()), _writer: writer })
    }

    /// The next frame; `None` at the end, or at anything that is no frame.
    async fn next(&mut self) -> Option<Frame> {
        Frame::decode(self.frames.next().await?.ok()?.freeze())
    }
}

/// The subscribing side of one subscription.
struct Follower {
    directory: Arc<Directory>,
    peer: String,
    hello: Hello,
    inbox: mpsc::Sender<Message>,
    connected: watch::Sender<bool>,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            if let Ok(mut source) = Source::connect(&self.directory, &self.peer, &self.hello).await {
                if !self.follow(&mut source, &mut pause).await {
                    return;
                }
                self.connected.send_replace(false);
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            pause = (2 * pause).min(PAUSE_LAST);
        }
    }

    /// Passes messages on until the connection ends. False if nobody takes them any more.
    async fn follow(&mut self, source: &mut Source, pause: &mut Duration) -> bool {
        let log = Retention::of(&self.hello.topic) == Retention::Log;
        while let Some(frame) = source.next().await {
            // Only a publisher that answers ends the growing of the pauses.
            *pause = PAUSE_FIRST;
            self.connected.send_if_modified(|connected| !std::mem::replace(connected, true));
            match frame {
                Frame::Message(message) => {
                    if log {
                        if self.hello.from.is_some_and(|from| message.sequence < from) {
                            continue;
                        }
                        self.hello.from = Some(message.sequence.saturating_add(1));
                    }
                    if self.inbox.send(message).await.is_err() {
                        return false;
                    }
                }
                // Someone who asked for what comes next has its beginning now, and keeps it over a reconnection.
                Frame::CaughtUp { next } => _ = self.hello.from.get_or_insert(next),
            }
        }
        true
    }
}
