//! What is true upstream: each look is a call of its own, so that a caller reads what it just wrote.

use std::sync::Arc;

use tokio::time::sleep_until;

use crate::domain::{AccountId, Deadline, ImageId, Region};
use crate::problem::ProblemKind;
use crate::upstream::CallError;

use super::completion::told_of;
use super::provenance::origins;
use super::{Access, ListError, Shares, Sharing, UpstreamWords};

impl Sharing {
    /// Who has access to an image now, and since when by whom. The deadline bounds the wait for a free call; the
    /// call itself has the upstream's time-out.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn list(
        &self,
        region: Region,
        image_id: ImageId,
        deadline: Deadline,
    ) -> Result<Shares, ListError> {
        self.look(region, image_id, None, deadline).await
    }

    /// Whether one account has access, and since when by whom.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn find(
        &self,
        region: Region,
        image_id: ImageId,
        account_id: AccountId,
        deadline: Deadline,
    ) -> Result<Option<Access>, ListError> {
        let shares = self
            .look(region, image_id, Some(account_id), deadline)
            .await?;
        Ok(shares.accounts.into_iter().next())
    }

    async fn look(
        &self,
        region: Region,
        image_id: ImageId,
        only: Option<AccountId>,
        deadline: Deadline,
    ) -> Result<Shares, ListError> {
        let place = self.0.reads.clone().try_acquire_owned();
        let place = place.map_err(|_| ListError::Overloaded)?;
        let parts = Arc::clone(&self.0);
        let looked = async move {
            let _place = place;
            let permit = tokio::select! {
                permit = parts.upstream.permit_for_read() => permit,
                () = sleep_until(deadline.instant().into()) => return Err(ListError::Overloaded),
                // A stop waits for calls that were made, not for those that would be.
                () = parts.tasks.stopping() => return Err(ListError::Overloaded),
            };
            let listed = parts.upstream.describe(permit, &region, &image_id).await;
            let mut accounts = listed.map_err(ListError::Upstream)?;
            accounts.retain(|account| only.is_none_or(|only| only == account.account_id));
            accounts.sort_by_key(|account| account.account_id);
            accounts.dedup_by_key(|account| account.account_id);
            let ids: Vec<AccountId> = accounts.iter().map(|account| account.account_id).collect();
            // Asked after the upstream: what it lists by then has mostly its outcome in the trail.
            let origins = origins(&parts.reader, &region, &image_id, &ids).await;
            let origins = origins.map_err(ListError::Trail)?;
            let access = accounts
                .into_iter()
                .zip(origins)
                .map(|(account, origin)| Access {
                    account_id: account.account_id,
                    account_name: account.account_name,
                    origin,
                });
            let accounts = access.collect();
            Ok(Shares {
                image_id,
                region,
                accounts,
            })
        };
        self.0
            .tasks
            .run(looked)
            .await
            .unwrap_or(Err(ListError::Lost))
    }
}

impl ListError {
    /// What a caller is told: the kind, and what happened in words.
    #[must_use]
    pub fn told(&self) -> (ProblemKind, &'static str) {
        match self {
            Self::Overloaded => (
                ProblemKind::Overloaded,
                "too many calls to the upstream are waiting",
            ),
            Self::Upstream(error) => {
                let (kind, _, detail) = told_of(error);
                (kind, detail)
            }
            Self::Trail(_) => (
                ProblemKind::AuditUnavailable,
                "the audit trail cannot be read",
            ),
            Self::Lost => (ProblemKind::InternalError, "the gateway failed"),
        }
    }

    /// What the upstream said, where it said something.
    #[must_use]
    pub fn upstream_words(&self) -> Option<UpstreamWords> {
        match self {
            Self::Upstream(CallError::Refused {
                ret_code, message, ..
            }) => Some(UpstreamWords {
                ret_code: ret_code.get(),
                message: message.clone(),
            }),
            Self::Upstream(_) | Self::Overloaded | Self::Trail(_) | Self::Lost => None,
        }
    }
}
