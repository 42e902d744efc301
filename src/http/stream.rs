//! Bodies that are made while they are sent.
//!
//! What is streamed is read on the main runtime, where the database's connections belong, and handed over a
//! chunk at a time: a slow reader holds up its own stream and nothing else. A body that cannot be finished is
//! broken off, so that nobody takes a part for the whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::problem::ProblemKind;
use crate::tasks::Tasks;

use super::problem::Problem;
use super::requests::Requests;

/// Most bodies that are being streamed. Each holds some pages where its reader takes nothing.
const STREAMS_MAX: usize = 128;
/// Most of one subject, so that one cannot take all places.
const STREAMS_OF_ONE_MAX: usize = 32;
/// How long a follower may hear nothing: proxies and clients take longer silence for a dead connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a follower that is ended by a stop may take for what it was given last.
const ENDING_TIME: Duration = Duration::from_secs(1);

/// The body ends before its end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body was broken off")]
struct BrokenOff;

/// The gateway's streams; clones share their bound.
#[derive(Debug, Clone)]
pub struct Streams {
    taken: Arc<Mutex<HashMap<String, usize>>>,
    tasks: Tasks,
    requests: Requests,
}

/// A place among the streams, taken until its body is dropped.
pub(super) struct Place {
    streams: Streams,
    subject: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.streams.taken();
        if let Some(count) = taken.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.subject);
            }
        }
    }
}

/// Whether a stream ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// A stop waits for it as for every call in flight.
    Whole,
    /// A stop ends it.
    Following,
}

/// Where a stream's chunks go. Dropped before [`Sink::end`], it breaks the body off.
pub(super) struct Sink(mpsc::Sender<Part>);

enum Part {
    Chunk(Bytes),
    End,
}

/// Nobody takes the stream any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone;

impl Sink {
    /// Hands a chunk over, when the one before has been taken.
    pub(super) async fn send(&self, chunk: Vec<u8>) -> Result<(), Gone> {
        let chunk = Part::Chunk(chunk.into());
        self.0.send(chunk).await.map_err(|_| Gone)
    }

    /// Ends the body in order: it is whole.
    pub(super) async fn end(self) {
        // Who is gone needs no end.
        let _ = self.0.send(Part::End).await;
    }
}

impl Streams {
    /// No stream yet; their work will be among `tasks`, their answers among `requests`.
    #[must_use]
    pub fn new(tasks: Tasks, requests: Requests) -> Self {
        Self {
            taken: Arc::default(),
            tasks,
            requests,
        }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        // Nothing under the lock can panic half-way through a change of the map.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for `subject`.
    ///
    /// # Errors
    /// 503 `overloaded` where there is none.
    pub(super) fn place(&self, subject: &str) -> Result<Place, Problem> {
        let mut taken = self.taken();
        let full = taken.values().sum::<usize>() >= STREAMS_MAX
            || taken.get(subject).copied().unwrap_or(0) >= STREAMS_OF_ONE_MAX;
        if full {
            let detail = "too many streams are open";
            return Err(Problem::new(ProblemKind::Overloaded, detail));
        }
        *taken.entry(subject.to_owned()).or_default() += 1;
        Ok(Place {
            streams: self.clone(),
            subject: subject.to_owned(),
        })
    }
}

impl Place {
    /// An answer of `media_type` whose body `work` makes. At a stop work of whole length goes on as long as calls
    /// in flight may; then the body is broken off.
    pub(super) fn respond<F>(
        self,
        method: &Method,
        media_type: &'static str,
        length: Length,
        work: impl FnOnce(Sink) -> F,
    ) -> HttpResponse
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut response = HttpResponse::Ok();
        response.content_type(media_type);
        if method == Method::HEAD {
            return response.streaming(stream::empty::<Result<Bytes, BrokenOff>>());
        }
        let (sender, mut parts) = mpsc::channel(1);
        let taken = sender.clone();
        let work = work(Sink(sender));
        let tasks = self.streams.tasks.clone();
        self.streams.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = taken.closed() => {}
                () = tasks.giving_up() => {}
                () = tasks.stopping(), if length == Length::Following => {
                    // In order, behind what was taken, where anything is being taken.
                    let _ = timeout(ENDING_TIME, taken.send(Part::End)).await;
                }
            }
        });
        let counted = match length {
            Length::Whole => self.streams.requests.begin(),
            Length::Following => self.streams.requests.follow(),
        };
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
