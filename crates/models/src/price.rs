//! Prices as data: a dated table in the build, which the operator's own text may override.
//!
//! A model whose price nobody gave has no cost, not a cost of zero: what to do then is the
//! caller's decision. Models on this machine and scripts cost nothing.

use crate::error::ModelError;
use crate::provider::Endpoint;
use serde::Deserialize;
use std::collections::BTreeMap;
use types::manifest::SCRIPT_PROVIDER;
use types::{Usage, Usd};

/// The day on which the table in the build was read.
pub const PRICES_DATE: &str = "2026-11-21";
const BUILT_IN: &str = include_str!("../prices.toml");
/// Tokens per priced unit.
const MILLION: u128 = 1_000_000;
/// Bytes of a request per token, at least: ordinary text and JSON in any script stay above it.
const BYTES_PER_TOKEN_MIN: u64 = 2;
/// How dated versions of a model are named; 0 is any digit.
const DATE_SUFFIXES: [&str; 2] = ["-0000-00-00", "-00000000"];

/// What tokens cost, by provider and model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    models: BTreeMap<String, BTreeMap<String, Price>>,
}

/// One model's prices in millionths of a dollar per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Price {
    normal: Rates,
    /// From more than this many input tokens on, these.
    long: Option<(u64, Rates)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    input: Usd,
    cached: Usd,
    /// Input that is written to the cache for minutes, and for an hour.
    write: Usd,
    write_hour: Usd,
    output: Usd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    input: f64,
    cached: Option<f64>,
    write: Option<f64>,
    write_hour: Option<f64>,
    output: f64,
    long_from: Option<u64>,
    long_input: Option<f64>,
    long_cached: Option<f64>,
    long_write: Option<f64>,
    long_write_hour: Option<f64>,
    long_output: Option<f64>,
}

#[derive(Deserialize)]
struct Table {
    /// For people; any text.
    #[serde(rename = "date")]
    _date: Option<String>,
    #[serde(flatten)]
    providers: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// What one call may use at most, for a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens read: one for every two bytes, more than any ordinary text has. Random bytes could
    /// pass it, up to one token per byte.
    pub input_tokens: u64,
    /// Tokens written: the limit in the request.
    pub output_tokens: u64,
}

impl Estimate {
    /// All tokens.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// The same as usage, to price it.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            cached_tokens: 0,
            cache_write_tokens: 0,
            cache_write_hour_tokens: 0,
            output_tokens: self.output_tokens,
        }
    }
}

/// The most a request of this size may use.
#[must_use]
pub const fn estimate(request_bytes: u64, max_output_tokens: u64) -> Estimate {
    Estimate {
        input_tokens: request_bytes.div_ceil(BYTES_PER_TOKEN_MIN),
        output_tokens: max_output_tokens,
    }
}

impl Prices {
    /// The table in the build, with the operator's text over it: same format, model by model.
    ///
    /// # Errors
    /// [`ModelError::PricesInvalid`] when the text is no such table.
    pub fn with_override(text: Option<&str>) -> Result<Self, ModelError> {
        let mut prices = Self::parse(BUILT_IN)?;
        if let Some(text) = text {
            for (provider, models) in Self::parse(text)?.models {
                prices.models.entry(provider).or_default().extend(models);
            }
        }
        Ok(prices)
    }

    /// What a call cost. `None`: nobody said what this model costs.
    #[must_use]
    pub fn cost(&self, endpoint: &Endpoint, model: &str, usage: &Usage) -> Option<Usd> {
        if let Some(price) = self.find(&endpoint.provider, model) {
            return Some(price.of(usage));
        }
        let free = endpoint.provider == SCRIPT_PROVIDER || endpoint.local;
        free.then_some(Usd::ZERO)
    }

    /// The model by its name, or the model it is a dated version of.
    fn find(&self, provider: &str, model: &str) -> Option<&Price> {
        let models = self.models.get(provider)?;
        models.get(model).or_else(|| models.get(undated(model)?))
    }

    fn parse(text: &str) -> Result<Self, ModelError> {
        let invalid = |why: String| ModelError::PricesInvalid { why };
        let table: Table = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let mut prices = Self::default();
        for (provider, entries) in table.providers {
            for (model, entry) in entries {
                let price = entry.price().ok_or_else(|| {
                    invalid(format!("{provider}/{model}: a price is negative or too large, or a long_ price is missing"))
                })?;
                prices.models.entry(provider.clone()).or_default().insert(model, price);
            }
        }
        Ok(prices)
    }
}

impl Entry {
    fn price(&self) -> Option<Price> {
        let writes = (self.write, self.write_hour);
        let normal = rates(self.input, self.cached, writes, self.output)?;
        let long = match (self.long_from, self.long_input, self.long_output) {
            (None, None, None) => None,
            (Some(from), Some(input), Some(output)) => {
                let writes = (self.long_write, self.long_write_hour);
                Some((from, rates(input, self.long_cached, writes, output)?))
            }
            _ => return None,
        };
        Some(Price { normal, long })
    }
}

/// A price that is left out is that of ordinary input; of an hour in the cache, that of minutes.
fn rates(
    input: f64,
    cached: Option<f64>,
    (write, write_hour): (Option<f64>, Option<f64>),
    output: f64,
) -> Option<Rates> {
    let write = write.unwrap_or(input);
    Some(Rates {
        input: Usd::from_dollars(input)?,
        cached: Usd::from_dollars(cached.unwrap_or(input))?,
        write: Usd::from_dollars(write)?,
        write_hour: Usd::from_dollars(write_hour.unwrap_or(write))?,
        output: Usd::from_dollars(output)?,
    })
}

/// `gpt-5` of `gpt-5-2025-08-07`, and the same for a date without dashes.
fn undated(model: &str) -> Option<&str> {
    DATE_SUFFIXES.iter().find_map(|suffix| {
        let (name, date) = model.split_at_checked(model.len().checked_sub(suffix.len())?)?;
        let fits = |(byte, form): (u8, u8)| {
            if form == b'0' { byte.is_ascii_digit() } else { byte == form }
        };
        date.bytes().zip(suffix.bytes()).all(fits).then_some(name)
    })
}

impl Price {
    /// Rounded up to the next millionth of a dollar.
    fn of(&self, usage: &Usage) -> Usd {
        let rates = match self.long {
            Some((from, long)) if usage.input_tokens > from => long,
            _ => self.normal,
        };
        let cached = usage.cached_tokens.min(usage.input_tokens);
        let plain = usage.input_tokens - cached;
        let written = usage.cache_write_tokens.min(plain);
        let hour = usage.cache_write_hour_tokens.min(written);
        let part = |tokens: u64, rate: Usd| u128::from(tokens) * u128::from(rate.micros);
        let sum = part(plain - written, rates.input)
            + part(cached, rates.cached)
            + part(written - hour, rates.write)
            + part(hour, rates.write_hour)
            + part(usage.output_tokens, rates.output);
        Usd { micros: u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded as _;
    use types::manifest::Dialect;

    fn endpoint(provider: &str, local: bool) -> Endpoint {
        let mut endpoint = Endpoint::script("http://127.0.0.1:1", Dialect::Chat);
        provider.clone_into(&mut endpoint.provider);
        endpoint.local = local;
        endpoint
    }

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage {
            input_tokens: input,
            cached_tokens: cached,
            output_tokens: output,
            ..Usage::default()
        }
    }

    #[test]
    fn costs_are_exact_and_rounded_up() {
        let prices = Prices::with_override(None).expect("the table in the build is good");
        let check = |model: &str, used: Usage, micros: Option<u64>| {
            let cost = prices.cost(&endpoint("openai", false), model, &used);
            assert_eq!(cost.map(|cost| cost.micros), micros, "{model}");
        };
        check("gpt-5", usage(1_000_000, 0, 0), Some(1_250_000));
        check("gpt-5", usage(1_000_000, 1_000_000, 0), Some(125_000));
        check("gpt-5", usage(0, 0, 1_000_000), Some(10_000_000));
        check("gpt-5", usage(1, 0, 0), Some(2));
        check("gpt-5", usage(10, 1000, 0), Some(2));
        check("gpt-5-2025-08-07", usage(1_000_000, 0, 0), Some(1_250_000));
        check("gpt-4o-2024-05-13", usage(1_000_000, 0, 0), Some(5_000_000));
        check("gpt-5.4", usage(272_000, 0, 0), Some(680_000));
        check("gpt-5.4", usage(272_001, 0, 0), Some(1_360_005));
        check("gpt-5x", usage(1, 1, 1), None);
        check("unheard-of", usage(1, 1, 1), None);
        check("gpt-5", usage(u64::MAX, 0, u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn what_is_written_to_the_cache_has_its_own_price() {
        let prices = Prices::with_override(None).expect("good");
        let check = |model: &str, used: Usage, micros: Option<u64>| {
            let cost = prices.cost(&endpoint("anthropic", false), model, &used);
            assert_eq!(cost.map(|cost| cost.micros), micros, "{model}");
        };
        let written = |write: u64, hour: u64| Usage {
            cache_write_tokens: write,
            cache_write_hour_tokens: hour,
            ..usage(1_000_000, 0, 0)
        };
        check("claude-opus-4-5", written(0, 0), Some(5_000_000));
        check("claude-opus-4-5", written(1_000_000, 0), Some(6_250_000));
        check("claude-opus-4-5", written(1_000_000, 1_000_000), Some(10_000_000));
        check("claude-opus-4-5-20251101", written(1_000_000, 0), Some(6_250_000));
        check("claude-opus-4-5", written(2_000_000, 9_000_000), Some(10_000_000));
        check("claude-sonnet-4-5", written(1_000_000, 0), Some(7_500_000));
        check("claude-sonnet-4-5-2025110", written(0, 0), None);
        let own = "[anthropic.claude-x]\ninput = 1.0\nwrite = 2.0\noutput = 1.0\n";
        let prices = Prices::with_override(Some(own)).expect("good");
        let cost =
            prices.cost(&endpoint("anthropic", false), "claude-x", &written(500_000, 500_000));
        assert_eq!(cost, Some(Usd { micros: 1_500_000 }), "an hour costs what minutes do");
    }

    #[test]
    fn scripts_and_local_servers_are_free_unless_priced() {
        let prices = Prices::with_override(None).expect("good");
        let used = usage(1000, 0, 1000);
        assert_eq!(prices.cost(&endpoint("script", true), "turns.toml", &used), Some(Usd::ZERO));
        assert_eq!(prices.cost(&endpoint("ollama", true), "qwen3", &used), Some(Usd::ZERO));
        assert_eq!(prices.cost(&endpoint("vllm", false), "qwen3", &used), None);
        let own =
            "[ollama.qwen3]\ninput = 1.0\noutput = 2.0\n[openai.gpt-5]\ninput = 0\noutput = 0\n";
        let prices = Prices::with_override(Some(own)).expect("good");
        assert_eq!(
            prices.cost(&endpoint("ollama", true), "qwen3", &used),
            Some(Usd { micros: 3000 })
        );
        assert_eq!(prices.cost(&endpoint("openai", false), "gpt-5", &used), Some(Usd::ZERO));
        assert!(prices.cost(&endpoint("openai", false), "gpt-5-mini", &used) > Some(Usd::ZERO));
    }

    #[test]
    fn bad_tables_are_refused() {
        let check = |text: &str| {
            let error = Prices::with_override(Some(text)).expect_err("refused");
            assert_eq!(error.code(), "BP-MODEL-017", "{error}");
        };
        check("[a.b]\ninput = -1.0\noutput = 1.0\n");
        check("[a.b]\ninput = 1.0\n");
        check("[a.b]\ninput = 1.0\noutput = 1.0\ninptu = 1\n");
        check("[a.b]\ninput = 1.0\noutput = 1.0\nlong_from = 5\n");
        check("not toml");
    }

    #[test]
    fn the_date_is_the_table_s() {
        assert!(BUILT_IN.contains(&format!("date = \"{PRICES_DATE}\"")));
    }

    #[test]
    fn an_estimate_covers_what_is_sent_and_may_be_written() {
        let estimate = estimate(1001, 4096);
        assert_eq!((estimate.input_tokens, estimate.output_tokens), (501, 4096));
        assert_eq!(estimate.tokens(), 4597);
    }
}
