//! Lists in pages.
//!
//! Owns the query of a page and how a list is cut. Does not own the lists.

use serde::{Deserialize, Deserializer, de::Error};
use utoipa::IntoParams;

/// Longest page.
pub const LIMIT_MAX: usize = 1_000;
/// Page length when none is asked for.
const LIMIT_DEFAULT: usize = 500;

/// The query of a list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Items at most; 500 when absent.
    #[param(minimum = 1, maximum = 1_000)]
    #[serde(default, deserialize_with = "limit")]
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Words that an item has in its name, title, description or tags (streams only).
    pub q: Option<String>,
}

/// A page's length, if it can be one.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let limit = usize::deserialize(deserializer)?;
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(Some(limit));
    }
    Err(D::Error::custom(format!("limit: 1 to {LIMIT_MAX}")))
}

/// The page of `items`, which are in the order of their keys, and the key that the next page
/// begins after.
pub fn paginate<T>(
    items: impl IntoIterator<Item = T>,
    page: &Page,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let after = page.after.as_deref().unwrap_or_default();
    let mut rest = items.into_iter().filter(|item| after.is_empty() || *key(item) > *after);
    let items: Vec<T> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let next = items.last().filter(|_| more).map(key);
    (items, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let all: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
        let mut page = Page { limit: Some(10), ..Page::default() };
        let mut seen = Vec::new();
        loop {
            let (items, next) = paginate(all.clone(), &page, Clone::clone);
            assert!(items.len() <= 10);
            seen.extend(items);
            match next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_page_is_never_longer_than_its_limit_allows() {
        let page = Page { limit: Some(usize::MAX), ..Page::default() };
        let (items, next) = paginate(0..5_000, &page, |n| format!("{n:05}"));
        assert_eq!((items.len(), next.as_deref()), (LIMIT_MAX, Some("00999")));
    }
}
