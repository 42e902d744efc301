//! Bodies that are made while they are sent.
//!
//! What is streamed is read on the main runtime, where the database's connections belong, and handed over a
//! chunk at a time: a slow reader holds up its own stream and nothing else. A body that cannot be finished is
//! broken off, so that nobody takes a part for the whole.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::problem::ProblemKind;
use crate::tasks::Tasks;

use super::problem::Problem;

/// Most bodies that are being streamed.
const STREAMS_MAX: usize = 256;
/// How long a follower may hear nothing: proxies and clients take longer silence for a dead connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The body ends before its end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body was broken off")]
struct BrokenOff;

/// The gateway's streams; clones share their bound.
#[derive(Debug, Clone)]
pub struct Streams {
    places: Arc<Semaphore>,
    tasks: Tasks,
}

/// A place among the streams.
pub(super) struct Place {
    permit: OwnedSemaphorePermit,
    tasks: Tasks,
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
    /// No stream yet; their work will be among `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks) -> Self {
        Self {
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            tasks,
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 503 `overloaded` where there is none.
    pub(super) fn place(&self) -> Result<Place, Problem> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let full = |_| Problem::new(ProblemKind::Overloaded, "too many streams are open");
        Ok(Place {
            permit: permit.map_err(full)?,
            tasks: self.tasks.clone(),
        })
    }
}

impl Place {
    /// An answer of `media_type` whose body `work` makes. At a stop the work goes on as long as calls in flight
    /// may; then the body is broken off.
    pub(super) fn respond<F>(
        self,
        method: &Method,
        media_type: &'static str,
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
        let (tasks, permit) = (self.tasks.clone(), self.permit);
        self.tasks.spawn(async move {
            let _place = permit;
            tokio::select! {
                () = work => {}
                () = taken.closed() => {}
                () = tasks.giving_up() => {}
            }
        });
        response.streaming(stream::poll_fn(move |context| {
            parts.poll_recv(context).map(|part| match part {
                Some(Part::Chunk(chunk)) => Some(Ok(chunk)),
                Some(Part::End) => None,
                None => Some(Err(BrokenOff)),
            })
        }))
    }
}
