//! Who shares what with whom, and what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Account ids from here up do not exist.
const ACCOUNTS_END: u64 = 9_000_000_000_000_000;
/// Image ids that begin so do not exist.
const MISSING_IMAGE: &str = "compshareImage-missing";
/// Images that are listed although nobody named them yet.
const LISTED_IMAGES: [&str; 3] = [
    "compshareImage-sandbox1",
    "compshareImage-sandbox2",
    "compshareImage-sandbox3",
];

/// Shares by region and image.
type Images = BTreeMap<(String, String), BTreeSet<u64>>;

#[derive(Default)]
pub(super) struct Ledger {
    images: Mutex<Images>,
}

impl Ledger {
    pub(super) fn has_account(account: u64) -> bool {
        account < ACCOUNTS_END
    }

    pub(super) fn has_image(image: &str) -> bool {
        !image.is_empty() && !image.starts_with(MISSING_IMAGE)
    }

    /// Adds and removes; all of it, since the caller looked for accounts that do not exist before.
    pub(super) fn change(&self, region: &str, image: &str, add: &[u64], remove: &[u64]) {
        let mut images = self.locked();
        let accounts = images
            .entry((region.to_owned(), image.to_owned()))
            .or_default();
        accounts.extend(add);
        accounts.retain(|account| !remove.contains(account));
    }

    /// The accounts that an image is shared with, ascending.
    pub(super) fn accounts(&self, region: &str, image: &str) -> Vec<u64> {
        let images = self.locked();
        images
            .get(&(region.to_owned(), image.to_owned()))
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// The images of a region: the listed ones, and those that a change has named.
    pub(super) fn images(&self, region: &str) -> Vec<String> {
        let images = self.locked();
        let named = images
            .keys()
            .filter(|(of, _)| of == region)
            .map(|(_, image)| image.clone());
        let mut all: BTreeSet<String> = named.collect();
        all.extend(LISTED_IMAGES.map(str::to_owned));
        all.into_iter().collect()
    }

    fn locked(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
