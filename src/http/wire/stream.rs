//! Bodies that are made while they are sent.
//!
//! What is streamed is read on the main runtime, where the database's connections belong, and handed over a
//! chunk at a time: a slow reader holds up its own stream and nothing else. A body that cannot be finished is
//! broken off, so that nobody takes a part for the whole.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::{Method, Version};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::domain::{Caller, Party};
use crate::problem::ProblemKind;
use crate::tasks::Tasks;
use crate::telemetry::{Held, Metrics};

use super::problem::Problem;
use super::requests::Requests;

/// Most bodies that are being streamed. Each holds some pages where its reader takes nothing.
const STREAMS_MAX: usize = 128;
/// Most of one subject, so that one cannot take all places.
const STREAMS_OF_ONE_MAX: usize = 32;
/// How long a follower may hear nothing: proxies and clients take longer silence for a dead connection.
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a follower that is ended by a stop may take for what it was given last.
const ENDING_TIME: Duration = Duration::from_secs(1);

/// The body ends before its end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body was broken off")]
struct BrokenOff;

/// The gateway's streams; clones share their bound.
#[derive(Debug, Clone)]
pub struct Streams {
    taken: Arc<Mutex<HashMap<Party, usize>>>,
    tasks: Tasks,
    requests: Requests,
    metrics: Metrics,
}

/// A place among the streams, taken until its body is dropped.
pub(in crate::http) struct StreamPlace {
    streams: Streams,
    party: Party,
    method: Method,
    _counted: Held,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut taken = self.streams.taken();
        if let Some(count) = taken.get_mut(&self.party) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.party);
            }
        }
    }
}

/// Whether a stream ends by itself.
pub(in crate::http) enum Length {
    /// A stop waits for it as for every call in flight.
    Whole,
    /// A stop ends it, and so does this.
    Following(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Where a stream's chunks go. Dropped before [`Sink::end`], it breaks the body off.
pub(in crate::http) struct Sink(mpsc::Sender<Part>);

enum Part {
    Chunk(Bytes),
    End,
}

/// Nobody takes the stream any more.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Gone;

impl Sink {
    /// Hands a chunk over, when the one before has been taken.
    pub(in crate::http) async fn send(&self, chunk: Vec<u8>) -> Result<(), Gone> {
        let chunk = Part::Chunk(chunk.into());
        self.0.send(chunk).await.map_err(|_| Gone)
    }

    /// Ends the body in order: it is whole.
    pub(in crate::http) async fn end(self) {
        // Who is gone needs no end.
        let _ = self.0.send(Part::End).await;
    }
}

impl Streams {
    /// No stream yet; their work will be among `tasks`, their answers among `requests`.
    #[must_use]
    pub fn new(tasks: Tasks, requests: Requests, metrics: Metrics) -> Self {
        Self {
            taken: Arc::default(),
            tasks,
            requests,
            metrics,
        }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<Party, usize>> {
        // Nothing under the lock can panic half-way through a change of the map.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for whoever asks by `request`.
    ///
    /// # Errors
    /// 505 where it asks by a version of HTTP that knows no body of unknown length but one that ends with the connection:
    /// its reader could not tell a part from the whole. 503 `overloaded` where there is no place.
    pub(in crate::http) fn place(
        &self,
        request: &HttpRequest,
        caller: &Caller,
    ) -> Result<StreamPlace, Problem> {
        if request.version() < Version::HTTP_11 {
            let detail = "a stream needs HTTP/1.1; pages in JSON do not";
            return Err(Problem::new(ProblemKind::HttpVersionNotSupported, detail));
        }
        let party = caller.party();
        let mut taken = self.taken();
        let full = taken.values().sum::<usize>() >= STREAMS_MAX
            || taken.get(&party).copied().unwrap_or(0) >= STREAMS_OF_ONE_MAX;
        if full {
            let detail = "too many streams are open";
            return Err(Problem::new(ProblemKind::Overloaded, detail));
        }
        *taken.entry(party.clone()).or_default() += 1;
        Ok(StreamPlace {
            streams: self.clone(),
            party,
            method: request.method().clone(),
            _counted: self.metrics.stream(),
        })
    }
}

impl StreamPlace {
    /// An answer of `media_type` whose body `work` makes. At a stop work of whole length goes on as long as calls
    /// in flight may; then the body is broken off.
    pub(in crate::http) fn respond<F>(
        self,
        media_type: &'static str,
        length: Length,
        work: impl FnOnce(Sink) -> F,
    ) -> HttpResponse
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut response = HttpResponse::Ok();
        response.content_type(media_type);
        if matches!(length, Length::Following(_)) {
            // A proxy that gathers an answer before it passes it on would pass nothing on.
            response.insert_header(("X-Accel-Buffering", "no"));
        }
        if self.method == Method::HEAD {
            return response.streaming(stream::empty::<Result<Bytes, BrokenOff>>());
        }
        let (sender, mut parts) = mpsc::channel(1);
        let taken = sender.clone();
        let work = work(Sink(sender));
        let tasks = self.streams.tasks.clone();
        let (counted, ended) = match length {
            Length::Whole => (self.streams.requests.begin(), None),
            Length::Following(ended) => (self.streams.requests.follow(), Some(ended)),
        };
        self.streams.tasks.spawn(async move {
            let follows = ended.is_some();
            let ended = async {
                match ended {
                    Some(ended) => ended.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = work => return,
                () = taken.closed() => return,
                () = tasks.giving_up() => return,
                () = tasks.stopping(), if follows => {}
                () = ended => {}
            }
            // In order, behind what was taken, where anything is being taken.
            let _ = timeout(ENDING_TIME, taken.send(Part::End)).await;
        });
        response.streaming(stream::poll_fn(move |context| {
            let _ = (&self, &counted);
            parts.poll_recv(context).map(|part| match part {
                Some(Part::Chunk(chunk)) => Some(Ok(chunk)),
                Some(Part::End) => None,
                None => Some(Err(BrokenOff)),
            })
        }))
    }
}
