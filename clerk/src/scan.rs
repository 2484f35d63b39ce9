//! Ranges of keys, read a page at a time.

use bytes::{BufMut, Bytes, BytesMut};
use raft_core::{LogIndex, Term};
use rpc::client::{Consistency, ScanItem, ScanReply, ScanRequest};
use rpc::limits::{MAX_KEY_BYTES, MAX_SCAN_ITEMS};

use crate::arguments;
use crate::clerk::Clerk;
use crate::outcome::Error;

/// What to read: a range of keys and how.
///
/// ```
/// use clerk::Scan;
///
/// let first_ten_users = Scan::prefix("user/").limit(10).keys_only();
/// assert_ne!(first_ten_users, Scan::all());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    from: Bytes,
    to: Option<Bytes>,
    limit: Option<u64>,
    keys_only: bool,
    consistency: Consistency,
}

impl Scan {
    /// All keys.
    ///
    /// ```
    /// # use clerk::Scan;
    /// assert_eq!(Scan::all(), Scan::prefix(""));
    /// ```
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    ///
    /// ```
    /// # use clerk::Scan;
    /// assert_eq!(Scan::prefix("a/"), Scan::range("a/", "a0"));
    /// ```
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        Self {
            from: Bytes::copy_from_slice(prefix),
            to: behind_prefix(prefix),
            ..Self::default()
        }
    }

    /// The keys from `from` on, `to` and what follows left out.
    ///
    /// ```
    /// # use clerk::Scan;
    /// let january = Scan::range("2026-01", "2026-02");
    /// # assert_ne!(january, Scan::all());
    /// ```
    pub fn range(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        Self {
            to: Some(Bytes::copy_from_slice(to.as_ref())),
            ..Self::starting_at(from)
        }
    }

    /// The keys from `from` on.
    ///
    /// ```
    /// # use clerk::Scan;
    /// let rest = Scan::starting_at("2026-01");
    /// # assert_ne!(rest, Scan::all());
    /// ```
    pub fn starting_at(from: impl AsRef<[u8]>) -> Self {
        Self {
            from: Bytes::copy_from_slice(from.as_ref()),
            ..Self::default()
        }
    }

    /// The keys before `to`, whatever the range began with.
    ///
    /// ```
    /// # use clerk::Scan;
    /// assert_eq!(Scan::starting_at("a").ending_before("b"), Scan::range("a", "b"));
    /// ```
    #[must_use]
    pub fn ending_before(self, to: impl AsRef<[u8]>) -> Self {
        Self {
            to: Some(Bytes::copy_from_slice(to.as_ref())),
            ..self
        }
    }

    /// At most `limit` items in all pages together.
    ///
    /// ```
    /// # use clerk::Scan;
    /// let a_few = Scan::all().limit(5);
    /// # assert_ne!(a_few, Scan::all());
    /// ```
    #[must_use]
    pub fn limit(self, limit: u64) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Leaves the values out.
    ///
    /// ```
    /// # use clerk::Scan;
    /// let names = Scan::all().keys_only();
    /// # assert_ne!(names, Scan::all());
    /// ```
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self {
            keys_only: true,
            ..self
        }
    }

    /// How fresh each page must be; linearizable if not said.
    ///
    /// ```
    /// # use clerk::{Consistency, Scan};
    /// let old_will_do = Scan::all().consistency(Consistency::Stale);
    /// # assert_ne!(old_will_do, Scan::all());
    /// ```
    #[must_use]
    pub fn consistency(self, consistency: Consistency) -> Self {
        Self { consistency, ..self }
    }

    /// The request for the next page; `None` if the limit leaves nothing to ask for.
    pub(crate) fn request(&self) -> Result<Option<ScanRequest>, Error> {
        arguments::bound(&self.from)?;
        self.to.as_deref().map_or(Ok(Bytes::new()), arguments::bound)?;
        let wanted = self.limit.unwrap_or(u64::MAX).min(MAX_SCAN_ITEMS as u64);
        if wanted == 0 {
            return Ok(None);
        }
        Ok(Some(ScanRequest {
            from: self.from.clone(),
            to: self.to.clone(),
            limit: u32::try_from(wanted).unwrap_or(u32::MAX),
            keys_only: self.keys_only,
            consistency: self.consistency,
        }))
    }

    /// What is left to read behind a page of `items`, if anything is.
    fn behind(&self, items: &[ScanItem], more: bool) -> Option<Self> {
        let last = items.last().filter(|_| more)?;
        let limit = self.limit.map(|limit| limit.saturating_sub(items.len() as u64));
        if limit == Some(0) {
            return None;
        }
        Some(Self {
            from: next_key(&last.key)?,
            limit,
            ..self.clone()
        })
    }

    pub(crate) fn page(&self, reply: ScanReply) -> Page {
        let ScanReply {
            items,
            more,
            applied_index,
            term,
        } = reply;
        Page {
            next: self.behind(&items, more),
            items,
            applied_index,
            term,
        }
    }
}

/// One page of a scan, read at one point in time.
///
/// ```no_run
/// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
/// let page = clerk.scan(&clerk::Scan::prefix("user/")).await?;
/// for item in &page.items {
///     println!("{:?} is {:?}", item.key, item.value);
/// }
/// if let Some(rest) = page.next {
///     let second_page = clerk.scan(&rest).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The items, in order of their keys.
    pub items: Vec<ScanItem>,
    /// What to read for the next page; `None` if this is the last.
    pub next: Option<Scan>,
    /// The state that was read had applied the log up to here.
    pub applied_index: LogIndex,
    /// The answering server's term.
    pub term: Term,
}

/// All pages of a scan, one after another; made by [`Clerk::pages`]. Each page is one point in time; writes
/// that happen between two pages are seen by the later one only.
///
/// ```no_run
/// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
/// let mut pages = clerk.pages(clerk::Scan::all());
/// while let Some(page) = pages.next_page().await? {
///     println!("{} items as of log index {}", page.items.len(), page.applied_index);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pages {
    clerk: Clerk,
    rest: Option<Scan>,
}

impl Pages {
    pub(crate) fn new(clerk: Clerk, scan: Scan) -> Self {
        Self {
            clerk,
            rest: Some(scan),
        }
    }

    /// Reads the next page; `None` after the last one. After an error the same page is asked for again.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a bound that is longer than a key may be; [`Error::NotDone`].
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk::Clerk) -> Result<(), clerk::Error> {
    /// let first = clerk.pages(clerk::Scan::all()).next_page().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_page(&mut self) -> Result<Option<Page>, Error> {
        let Some(scan) = &self.rest else { return Ok(None) };
        let page = self.clerk.scan(scan).await?;
        self.rest.clone_from(&page.next);
        Ok(Some(page))
    }
}

/// The lowest key behind all keys that begin with `prefix`; `None` if there is none.
fn behind_prefix(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.len() - prefix.iter().rev().take_while(|byte| **byte == u8::MAX).count();
    let (last, front) = prefix[..kept].split_last()?;
    let mut behind = BytesMut::from(front);
    behind.put_u8(last + 1);
    Some(behind.freeze())
}

/// The lowest key above `key` that a store can hold; `None` if there is none.
fn next_key(key: &Bytes) -> Option<Bytes> {
    if key.len() >= MAX_KEY_BYTES {
        // The keys that begin with it are all too long to exist.
        return behind_prefix(key);
    }
    let mut next = BytesMut::from(&key[..]);
    next.put_u8(0);
    Some(next.freeze())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn item(key: &[u8]) -> ScanItem {
        ScanItem {
            key: Bytes::copy_from_slice(key),
            value: Bytes::new(),
            version: LogIndex(1),
        }
    }

    /// What a server does, on a plain map.
    fn serve(keys: &BTreeMap<Vec<u8>, ()>, request: &ScanRequest, page_items: usize) -> ScanReply {
        let in_range = keys.keys().filter(|key| {
            key[..] >= request.from[..] && request.to.as_ref().is_none_or(|to| key[..] < to[..])
        });
        let take = page_items.min(request.limit as usize);
        let found: Vec<_> = in_range.take(take + 1).map(|key| item(key)).collect();
        let more = found.len() > take;
        let items = found.into_iter().take(take).collect();
        ScanReply {
            items,
            more,
            applied_index: LogIndex(1),
            term: Term(1),
        }
    }

    fn collect(keys: &BTreeMap<Vec<u8>, ()>, scan: Scan, page_items: usize) -> Vec<Vec<u8>> {
        let mut rest = Some(scan);
        let mut found = Vec::new();
        while let Some(scan) = rest {
            let Some(request) = scan.request().unwrap() else {
                break;
            };
            let page = scan.page(serve(keys, &request, page_items));
            found.extend(page.items.iter().map(|item| item.key.to_vec()));
            rest = page.next;
        }
        found
    }

    /// Mostly bytes at the ends of their range, where keys are neighbours.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![Just(0), Just(1), Just(255), any::<u8>()]
    }

    proptest! {
        #[test]
        fn all_pages_together_are_the_range_whatever_the_page_size(
            keys in proptest::collection::btree_map(proptest::collection::vec(byte(), 1..4), Just(()), 0..40),
            prefix in proptest::collection::vec(byte(), 0..3),
            page_items in 1_usize..6,
            limit in proptest::option::of(0_u64..20),
        ) {
            let limited = |scan: Scan| match limit { Some(limit) => scan.limit(limit), None => scan };
            let most = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap();
            let expected: Vec<_> = keys.keys().filter(|key| key.starts_with(&prefix)).take(most).cloned().collect();
            prop_assert_eq!(collect(&keys, limited(Scan::prefix(&prefix)), page_items), expected);
            let expected: Vec<_> = keys.keys().filter(|key| key[..] >= prefix[..]).take(most).cloned().collect();
            prop_assert_eq!(collect(&keys, limited(Scan::starting_at(&prefix)), page_items), expected);
        }
    }

    #[test]
    fn the_page_behind_a_key_of_the_longest_length_starts_within_the_limit() {
        let longest = Bytes::from(vec![b'k'; MAX_KEY_BYTES]);
        let next = Scan::all().behind(&[item(&longest)], true).unwrap();
        assert!(next.from > longest);
        assert!(next.request().is_ok());
        let last_of_all = Bytes::from(vec![u8::MAX; MAX_KEY_BYTES]);
        assert_eq!(Scan::all().behind(&[item(&last_of_all)], true), None);
    }

    #[test]
    fn bounds_longer_than_a_key_are_refused() {
        let long = vec![1; MAX_KEY_BYTES + 1];
        assert!(Scan::starting_at(&long).request().is_err());
        assert!(Scan::range("a", &long).request().is_err());
    }
}
