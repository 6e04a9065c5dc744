//! `[savings]`: what bytes cost.

use super::reader::Reader;
use super::value::{Cost, Currency};
use crate::savings::Price;

/// What the operator has said of it.
pub(super) fn price(reader: &mut Reader) -> Price {
    let per_gb = reader.get("savings.cost-per-gb").map(|Cost(cost)| cost);
    let currency = reader.get_or_default("savings.currency");
    Price { per_gb, currency: currency.map(|Currency(name)| name).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::super::raw_config::RawConfig;
    use super::*;

    fn read(toml: &str) -> Result<Price, String> {
        let mut found = RawConfig::default();
        found.add_file(std::path::Path::new("entrepot.toml"), toml);
        let mut reader = Reader::of(found);
        let price = price(&mut reader);
        reader.finish(price).map_err(|error| error.to_string())
    }

    #[test]
    fn a_price_is_a_number() {
        let none = Price { per_gb: None, currency: "USD".to_owned() };
        assert_eq!(read(""), Ok(none.clone()));
        for (given, per_gb) in [("0.045", 0.045), ("2", 2.0), ("\"0.1\"", 0.1), ("0", 0.0)] {
            let expected = Ok(Price { per_gb: Some(per_gb), ..none.clone() });
            assert_eq!(read(&format!("[savings]\ncost-per-gb = {given}\n")), expected, "{given}");
        }
        for wrong in ["-1", "nan", "inf", "\"4 cents\"", "\"0,045\"", "true", "1e300"] {
            let error = read(&format!("[savings]\ncost-per-gb = {wrong}\n")).unwrap_err();
            assert!(error.contains("cost-per-gb"), "{wrong}: {error}");
        }
        let euros = read("[savings]\ncurrency = \"EUR\"\n").unwrap();
        assert_eq!(euros.currency, "EUR");
        for wrong in ["\"\"", "\"US dollars\"", "3", "\"a\\u001bb\""] {
            assert!(read(&format!("[savings]\ncurrency = {wrong}\n")).is_err(), "{wrong}");
        }
    }
}
