//! An image that was another gateway's: what that one left of it is known before lanes may use it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::ASK_INTERVAL;
use crate::audit::{Grant, Lease};
use crate::domain::Deadline;
use crate::sharing::lanes::LaneKey;
use crate::sharing::{Parts, reconciliation};

/// How long, and how often, is waited for outcomes that who had an image before has not written yet.
const SETTLING_TIME: Duration = Duration::from_secs(30);
const SETTLING_INTERVAL: Duration = Duration::from_millis(50);

/// Takes an image over from a gateway that did not let it go in order, or left changes that may land late.
pub(super) async fn inherit(parts: Weak<Parts>, chain: Arc<str>, lease: Lease, grant: Grant) {
    let inheritance = Inheritance {
        parts: parts.clone(),
        key: grant.key.clone(),
        number: grant.number,
    };
    sleep(grant.wait).await;
    let patience = Deadline::after(SETTLING_TIME);
    loop {
        let Some(parts) = parts.upgrade() else {
            return;
        };
        if lease.chain().borrow().as_ref() != Some(&chain) {
            return;
        }
        let (region, image_id) = &grant.key;
        // Who had it before may have done what it has not written down yet.
        let settling = grant.unsure && Deadline::now() < patience;
        if settling
            && matches!(
                parts.reader.is_being_settled(region, image_id).await,
                Ok(true)
            )
        {
            drop(parts);
            sleep(SETTLING_INTERVAL).await;
            continue;
        }
        let remembered = if grant.unsure {
            reconciliation::remember_image(&parts, &grant.key).await
        } else {
            Ok(())
        };
        match remembered {
            Ok(()) => {
                parts.lanes.inherited(grant.key, grant.number);
                // Later than that it says nothing.
                drop(inheritance);
                return;
            }
            Err(error) => {
                tracing::warn!(error.message = %error, image.id = grant.key.1.as_str(),
                    "changes that may take effect late could not be read; the image waits");
            }
        }
        drop(parts);
        sleep(ASK_INTERVAL).await;
    }
}

/// What others left of an image, as long as somebody looks what it is. Dropped, by a panic too, it says that nobody does.
struct Inheritance {
    parts: Weak<Parts>,
    key: LaneKey,
    number: i64,
}

impl Drop for Inheritance {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.upgrade() {
            parts.lanes.not_inherited(self.key.clone(), self.number);
        }
    }
}
