use std::time::Duration;

use crate::corefile::{ConfigError, Line, Token, zones_from_args};
use crate::plugin::Zones;

/// Messages kept of each kind by default.
const CAPACITY: usize = 9_984;
const SUCCESS_TTL_MAX_S: u32 = 3_600;
const DENIAL_TTL_MAX_S: u32 = 1_800;
const TTL_MIN_S: u32 = 5;
/// RFC 2308 §7.1 and RFC 8767 §5 allow no more.
const FAILURE_MAX: Duration = Duration::from_secs(300);

/// What to keep, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) zones: Zones,
    /// Label `zones` of metrics.
    pub(super) zones_label: String,
    pub(super) success: Side,
    pub(super) denial: Side,
    pub(super) prefetch: Option<Prefetch>,
    pub(super) stale: Option<Stale>,
    /// Seconds a SERVFAIL is kept, 0 for not at all.
    pub(super) failure_ttl_s: u32,
    /// TTLs do not count down.
    pub(super) keep_ttl: bool,
}

/// Positive or negative replies.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) capacity: usize,
    pub(super) max_ttl_s: u32,
    pub(super) min_ttl_s: u32,
    /// Not kept for these.
    pub(super) disabled: Zones,
}

/// Popular replies are asked for again before they run out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefetch {
    /// Hits that make a reply popular.
    pub(super) amount: u32,
    /// The longest time between two of them.
    pub(super) gap: Duration,
    /// When so much of the TTL is left.
    pub(super) percent: u32,
}

/// Replies are given after their time, too (RFC 8767).
#[derive(Clone, Copy, Debug)]
pub(super) struct Stale {
    pub(super) up_to: Duration,
    /// Ask first, and give it only if nobody answers within this (zero: as long as it takes).
    pub(super) verify: Option<Duration>,
    /// The TTL they are given with.
    pub(super) ttl_s: u32,
    /// After a failed attempt to refresh one, the time until the next.
    pub(super) recheck: Duration,
    /// A positive reply, however stale, is better than a negative one.
    pub(super) prefer_positive: bool,
}

const OPTIONS: [&str; 8] = [
    "success",
    "denial",
    "prefetch",
    "serve_stale",
    "serve_stale_policy",
    "servfail",
    "disable",
    "keepttl",
];

impl Config {
    pub(super) fn read(line: &Line, of_block: &[String]) -> Result<Self, ConfigError> {
        let (ttl, zones) = match line.args() {
            [first, zones @ ..] if first.parse::<i64>().is_ok() => {
                (Some(ttl(first, "the TTL of `cache`")?), zones)
            }
            zones => (None, zones),
        };
        let side = |max| Side {
            capacity: CAPACITY,
            max_ttl_s: ttl.unwrap_or(max),
            min_ttl_s: TTL_MIN_S,
            disabled: Zones::default(),
        };
        let mut config = Self {
            zones: Zones::from_args(zones, of_block)?,
            zones_label: zones_from_args(zones, of_block)?.join(","),
            success: side(SUCCESS_TTL_MAX_S),
            denial: side(DENIAL_TTL_MAX_S),
            prefetch: None,
            stale: None,
            failure_ttl_s: TTL_MIN_S,
            keep_ttl: false,
        };
        let mut disabled = [Vec::new(), Vec::new()];
        let mut policy = None;
        for option in line.options() {
            option.no_body()?;
            config.option(option, &mut disabled, &mut policy)?;
        }
        let [success, denial] = disabled;
        config.success.disabled = of_option(&success)?;
        config.denial.disabled = of_option(&denial)?;
        match (policy, &mut config.stale) {
            (Some(_), Some(stale)) => stale.prefer_positive = true,
            (Some(option), None) => {
                return Err(option.error("`serve_stale_policy` needs `serve_stale`"));
            }
            (None, _) => {}
        }
        config.stale = config.stale.filter(|stale| !stale.up_to.is_zero());
        Ok(config)
    }

    fn option<'a>(
        &mut self,
        option: &'a Line,
        disabled: &mut [Vec<Token>; 2],
        policy: &mut Option<&'a Line>,
    ) -> Result<(), ConfigError> {
        match &**option.name() {
            "success" => side(option, &mut self.success)?,
            "denial" => side(option, &mut self.denial)?,
            "prefetch" => self.prefetch = prefetch(option)?,
            "serve_stale" => self.stale = Some(stale(option)?),
            "serve_stale_policy" => {
                let [name] = option.exactly("`prefer_positive`")?;
                if !name.eq_ignore_ascii_case("prefer_positive") {
                    return Err(name.error(format!(
                        "unknown policy `{name}`; the only one is `prefer_positive`"
                    )));
                }
                if policy.replace(option).is_some() {
                    return Err(option.error("`serve_stale_policy` may be given once"));
                }
            }
            "servfail" => {
                let [time] = option.exactly("a duration")?;
                let time = at_most(time, "servfail", FAILURE_MAX)?;
                self.failure_ttl_s = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
            }
            "disable" => {
                let args = option.between(1, usize::MAX, "`success` or `denial`, and zones")?;
                let Some((kind, zones)) = args.split_first() else {
                    return Ok(());
                };
                let [success, denial] = disabled;
                let side = match &**kind {
                    "success" => success,
                    "denial" => denial,
                    _ => {
                        return Err(
                            kind.error(format!("expected `success` or `denial`, found `{kind}`"))
                        );
                    }
                };
                let everywhere = Token {
                    text: ".".into(),
                    at: kind.at.clone(),
                };
                match zones {
                    [] => side.push(everywhere),
                    zones => side.extend_from_slice(zones),
                }
            }
            "keepttl" => {
                option.no_args()?;
                self.keep_ttl = true;
            }
            _ => return Err(option.unknown_option(&OPTIONS)),
        }
        Ok(())
    }
}

fn of_option(zones: &[Token]) -> Result<Zones, ConfigError> {
    Zones::from_args(zones, &[])
}

fn ttl(token: &Token, what: &str) -> Result<u32, ConfigError> {
    token.number(what, 1..=u32::MAX >> 1)
}

/// `success|denial CAPACITY [TTL] [MINTTL]`
fn side(option: &Line, side: &mut Side) -> Result<(), ConfigError> {
    let args = option.between(1, 3, "a capacity, and perhaps a TTL and a least TTL")?;
    let name = option.name();
    for (index, arg) in args.iter().enumerate() {
        match index {
            0 => side.capacity = arg.number(&format!("the capacity of `{name}`"), 0..=1 << 30)?,
            1 => side.max_ttl_s = ttl(arg, &format!("the TTL of `{name}`"))?,
            _ => {
                let what = format!("the least TTL of `{name}`");
                side.min_ttl_s = arg.number(&what, 0..=u32::MAX >> 1)?;
            }
        }
    }
    Ok(())
}

/// `prefetch AMOUNT [DURATION] [PERCENTAGE%]`
fn prefetch(option: &Line) -> Result<Option<Prefetch>, ConfigError> {
    let what = "an amount, and perhaps a duration and a percentage";
    let args = option.between(1, 3, what)?;
    let mut prefetch = Prefetch {
        amount: 0,
        gap: Duration::from_secs(60),
        percent: 10,
    };
    for (index, arg) in args.iter().enumerate() {
        match index {
            0 => prefetch.amount = arg.number("the amount of `prefetch`", 0..=u32::MAX >> 1)?,
            1 => prefetch.gap = arg.duration("the duration of `prefetch`")?,
            _ => {
                let number = arg.strip_suffix('%').and_then(|number| number.parse().ok());
                let number = number.filter(|number| (10..=90).contains(number));
                prefetch.percent = number
                    .ok_or_else(|| arg.error(format!("expected 10% to 90%, found `{arg}`")))?;
            }
        }
    }
    Ok((prefetch.amount > 0).then_some(prefetch))
}

/// `serve_stale [DURATION] [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]`
fn stale(option: &Line) -> Result<Stale, ConfigError> {
    let mut stale = Stale {
        up_to: Duration::from_secs(3_600),
        verify: None,
        ttl_s: 0,
        recheck: Duration::ZERO,
        prefer_positive: false,
    };
    let what = "a duration, a mode and its settings, all of them optional";
    let args = option.between(0, 5, what)?;
    let [up_to, rest @ ..] = args else {
        return Ok(stale);
    };
    stale.up_to = up_to.duration("serve_stale")?;
    let [mode, rest @ ..] = rest else {
        return Ok(stale);
    };
    let rest = match mode.to_ascii_lowercase().as_str() {
        "immediate" => rest,
        "verify" => {
            let (timeout, rest) = rest.split_first().unzip();
            let timeout = timeout.map(|timeout| timeout.duration("the timeout of `verify`"));
            stale.verify = Some(timeout.transpose()?.unwrap_or_default());
            rest.unwrap_or_default()
        }
        _ => {
            return Err(mode.error(format!("expected `immediate` or `verify`, found `{mode}`")));
        }
    };
    let (ttl, recheck) = match rest {
        [] => (None, None),
        [ttl] => (Some(ttl), None),
        [ttl, recheck] => (Some(ttl), Some(recheck)),
        [_, _, more, ..] => {
            return Err(more.error(format!("`{more}` is one argument too many")));
        }
    };
    if let Some(ttl) = ttl {
        let time = ttl.duration("the TTL of stale replies")?;
        let whole = u32::try_from(time.as_secs()).ok();
        let whole = whole.filter(|_| time.subsec_nanos() == 0);
        stale.ttl_s = whole
            .ok_or_else(|| ttl.error(format!("a TTL is a whole number of seconds, not `{ttl}`")))?;
    }
    if let Some(recheck) = recheck {
        stale.recheck = at_most(recheck, "the time until the next attempt", FAILURE_MAX)?;
    }
    Ok(stale)
}

fn at_most(token: &Token, what: &str, most: Duration) -> Result<Duration, ConfigError> {
    let time = token.duration(what)?;
    if time > most {
        return Err(token.error(format!(
            "{what} may be {}s at most, not `{token}`",
            most.as_secs()
        )));
    }
    Ok(time)
}
