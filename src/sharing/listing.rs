//! What is true upstream: each look is a call of its own, so that a caller reads what it just wrote.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::{AccountId, Deadline, ImageId, Region};
use crate::problem::ProblemKind;
use crate::upstream::{CallError, SharedAccount};

use super::completion::{Told, told_of};
use super::lanes::{NoTurn, ReadError};
use super::provenance::origins;
use super::{Access, ListError, Parts, Shares, Sharing, UpstreamWords};

impl Sharing {
    /// Who has access to an image now, and since when by whom.
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
        let parts = Arc::clone(&self.0);
        let looked = async move {
            let mut accounts = parts.accounts(&region, &image_id, deadline).await?;
            accounts.retain(|account| only.is_none_or(|only| only == account.account_id));
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

impl Parts {
    /// Who has access now, ascending and each once.
    pub(super) async fn accounts(
        &self,
        region: &Region,
        image_id: &ImageId,
        deadline: Deadline,
    ) -> Result<Vec<SharedAccount>, ListError> {
        let listed = self.lanes.read(deadline, |connection| {
            self.upstream.describe(region, image_id, connection)
        });
        let mut accounts = listed.await?;
        accounts.sort_by_key(|account| account.account_id);
        accounts.dedup_by_key(|account| account.account_id);
        Ok(accounts)
    }
}

impl Parts {
    /// As [`Self::accounts`], without their names.
    pub(super) async fn account_ids(
        &self,
        region: &Region,
        image_id: &ImageId,
        deadline: Deadline,
    ) -> Result<BTreeSet<AccountId>, ListError> {
        let listed = self.accounts(region, image_id, deadline).await?;
        Ok(listed.iter().map(|account| account.account_id).collect())
    }
}

impl From<ReadError> for ListError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Full | ReadError::NoTurn(NoTurn::TimeUp) => Self::Overloaded,
            ReadError::NoTurn(NoTurn::BreakerOpen(wait)) => Self::BreakerOpen(wait),
            ReadError::TimeUp => Self::TimeUp,
            ReadError::Failed(error) => Self::Upstream(error),
        }
    }
}

impl ListError {
    /// What a caller is told.
    #[must_use]
    pub fn told(&self) -> Told {
        let (kind, detail) = match self {
            Self::Overloaded => (
                ProblemKind::Overloaded,
                "too many calls to the upstream are waiting",
            ),
            Self::TimeUp => (
                ProblemKind::UpstreamTimeout,
                "the upstream did not answer in time",
            ),
            Self::Trail(_) => (
                ProblemKind::AuditUnavailable,
                "the audit trail cannot be read",
            ),
            Self::Lost => (ProblemKind::InternalError, "the gateway failed"),
            Self::BreakerOpen(wait) => return Told::breaker_open(*wait),
            Self::Upstream(error) => return told_of(error),
        };
        Told::new(kind, true, detail)
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
            Self::Upstream(_)
            | Self::Overloaded
            | Self::BreakerOpen(_)
            | Self::TimeUp
            | Self::Trail(_)
            | Self::Lost => None,
        }
    }
}
