//! Constants of the two machines that a scenario or a sweep changes.
//!
//! Owns how a name becomes a field: as it is called in the core, with `_ms` behind it where it is a
//! time. Does not own the constants.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Changed constants by name.
pub type Changes = BTreeMap<String, u64>;

/// The defaults but for what `changes` says.
///
/// # Errors
/// Names a constant that does not exist.
pub fn changed<T: Default + Serialize + DeserializeOwned>(changes: &Changes) -> anyhow::Result<T> {
    let mut all = serde_json::to_value(T::default())?;
    for (name, value) in changes {
        let known = all.as_object_mut().context("constants have names")?;
        if let Some(field) = known.get_mut(name).filter(|field| field.is_number()) {
            *field = json!(value);
        } else if let Some(field) = name.strip_suffix("_ms").and_then(|name| known.get_mut(name)) {
            *field = json!({ "secs": value / 1_000, "nanos": value % 1_000 * 1_000_000 });
        } else {
            let names: Vec<String> = known.iter().map(|(name, value)| told(name, value)).collect();
            bail!("there is no constant {name}; there are {}", names.join(", "));
        }
    }
    Ok(serde_json::from_value(all)?)
}

fn told(name: &str, value: &Value) -> String {
    if value.is_object() { format!("{name}_ms") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use astral_core::{media::relay::RelayConfig, overlay::Tuning};

    use super::*;

    #[test]
    fn a_constant_is_changed_by_its_name_and_a_time_in_milliseconds() {
        let changes =
            BTreeMap::from([("lease_ms".to_owned(), 7_250), ("slot_share_percent".to_owned(), 80)]);
        let tuning: Tuning = changed(&changes).unwrap();
        assert_eq!(tuning.lease, Duration::from_millis(7_250));
        assert_eq!(tuning.slot_share_percent, 80);
        assert_eq!(
            Tuning { lease: Tuning::default().lease, ..tuning }.renew_every,
            Tuning::default().renew_every
        );
        let relay: RelayConfig =
            changed(&BTreeMap::from([("dead_min_ms".to_owned(), 450)])).unwrap();
        assert_eq!(relay.dead_min, Duration::from_millis(450));
    }

    #[test]
    fn an_unknown_constant_is_refused_with_a_list() {
        let wrong = BTreeMap::from([("leese_ms".to_owned(), 1)]);
        let error = changed::<Tuning>(&wrong).unwrap_err().to_string();
        assert!(error.contains("lease_ms") && error.contains("leese_ms"), "{error}");
    }
}
