//! A change's place in its lane, as its use case holds it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::machine::{Ended, Last, PlaceId};
use super::{Shared, State};

/// A change's words: that it is late, and that it has ended.
const WORDS_MAX: usize = 2;

/// What a change in a lane is told.
#[derive(Debug)]
pub(in crate::sharing) enum Word {
    /// It has ended.
    Ended(Ended),
    /// Its time is up while a call carries it; it will end.
    Late,
}

/// A change's place in its lane.
#[derive(Debug)]
pub(in crate::sharing) struct Place {
    id: PlaceId,
    words: mpsc::Receiver<Word>,
    shared: Arc<Shared>,
    ended: bool,
}

impl Place {
    /// Handles for changes that were just admitted.
    pub(super) fn handles(shared: &Arc<Shared>, state: &mut State, ids: Vec<PlaceId>) -> Vec<Self> {
        let handle = |id| {
            let (sender, words) = mpsc::channel(WORDS_MAX);
            state.places.insert(id, sender);
            Self {
                id,
                words,
                shared: Arc::clone(shared),
                ended: false,
            }
        };
        ids.into_iter().map(handle).collect()
    }

    pub(super) fn id(&self) -> PlaceId {
        self.id
    }

    /// Waits for what happens to the change next.
    pub(in crate::sharing) async fn word(&mut self) -> Word {
        let word = self.words.recv().await;
        let word = word.unwrap_or_else(|| Word::Ended(lost()));
        self.ended = matches!(word, Word::Ended(_));
        word
    }

    /// Gives the place up, and says how the change ended: what was never sent never will be.
    pub(in crate::sharing) fn abandon(&mut self) -> Ended {
        self.ended = true;
        let abandoned = self.shared.with(|state, now| {
            state.places.remove(&self.id);
            state.traced.forget(self.id);
            state.machine.abandon(now, self.id)
        });
        let told = || {
            while let Ok(word) = self.words.try_recv() {
                if let Word::Ended(ended) = word {
                    return Some(ended);
                }
            }
            None
        };
        abandoned.or_else(told).unwrap_or_else(lost)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.ended {
            self.abandon();
        }
    }
}

fn lost() -> Ended {
    Ended {
        last: Last::Lost,
        calls: 1,
        may_have_applied: true,
        may_land: true,
        seen: None,
    }
}
