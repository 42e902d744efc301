//! What is true upstream: each look is a call that begins after it was asked for, so that a caller reads what it just
//! wrote.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::{AccountId, Deadline, ImageId, Party, Region};
use crate::upstream::SharedAccount;

use super::lanes::{NoTurn, ReadError, ReadTerms};
use super::provenance::origins;
use super::{Access, ListError, Parts, Shares, Sharing};

impl Sharing {
    /// Who has access to an image now, and since when by whom.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn list(
        &self,
        asker: Party,
        region: Region,
        image_id: ImageId,
        deadline: Deadline,
    ) -> Result<Shares, ListError> {
        self.look(asker, region, image_id, None, deadline).await
    }

    /// Whether one account has access, and since when by whom.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn find(
        &self,
        asker: Party,
        region: Region,
        image_id: ImageId,
        account_id: AccountId,
        deadline: Deadline,
    ) -> Result<Option<Access>, ListError> {
        let shares = self
            .look(asker, region, image_id, Some(account_id), deadline)
            .await?;
        Ok(shares.accounts.into_iter().next())
    }

    async fn look(
        &self,
        asker: Party,
        region: Region,
        image_id: ImageId,
        only: Option<AccountId>,
        deadline: Deadline,
    ) -> Result<Shares, ListError> {
        let parts = Arc::clone(&self.0);
        let looked = async move {
            let read = ReadTerms::of(asker, deadline);
            let key = (region, image_id);
            let listed = parts.shared_list(&key, read).await?;
            let (region, image_id) = key;
            let wanted =
                |account: &&SharedAccount| only.is_none_or(|only| only == account.account_id);
            let accounts: Vec<SharedAccount> = listed.iter().filter(wanted).cloned().collect();
            let ids: Vec<AccountId> = accounts.iter().map(|account| account.account_id).collect();
            // Terms after the upstream: what it lists by then has mostly its outcome in the trail.
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
    /// Who has access now, ascending and each once, by a call of its own.
    pub(super) async fn accounts(
        &self,
        region: &Region,
        image_id: &ImageId,
        asked: ReadTerms,
    ) -> Result<Vec<SharedAccount>, ListError> {
        let listed = self.lanes.read(asked, |connection| {
            self.upstream.describe(region, image_id, connection)
        });
        Ok(in_order(listed.await?))
    }

    /// As [`Self::accounts`], without their names.
    pub(super) async fn account_ids(
        &self,
        region: &Region,
        image_id: &ImageId,
        asked: ReadTerms,
    ) -> Result<BTreeSet<AccountId>, ListError> {
        let listed = self.accounts(region, image_id, asked).await?;
        Ok(listed.iter().map(|account| account.account_id).collect())
    }
}

/// Ascending and each once.
pub(super) fn in_order(accounts: Vec<SharedAccount>) -> Vec<SharedAccount> {
    let mut accounts = accounts;
    accounts.sort_by_key(|account| account.account_id);
    accounts.dedup_by_key(|account| account.account_id);
    accounts
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
