use super::edns::{Action, Content, EdnsRule, NSID, SUBNET};
use super::matcher::{Matcher, highest_group};
use super::response::{CnameRule, ResponseRule, Rewriter};
use super::rule::{Field, NameRule, Rule};
use crate::corefile::{ConfigError, Line, Token};
use crate::plugin::pattern::pattern;
use crate::wire::{Class, Rcode, Rtype};

const FIELDS: &str = "name, type, class, ttl, rcode, cname, edns0";
const MATCHES: &str = "exact, prefix, suffix, substring, regex";
/// The longest TTL (RFC 2181 §8).
const TTL_MAX_S: u32 = 0x7FFF_FFFF;
/// The highest code that has a name.
const RCODE_MAX: u16 = 23;

/// Reads a directive: its arguments, or if there is at most one, also the words in its braces,
/// whatever line they are on.
pub(super) fn read(line: &Line) -> Result<Rule, ConfigError> {
    let mut words: Vec<&Token> = line.args().iter().collect();
    if words.len() < 2 {
        for inner in line.options() {
            inner.no_body()?;
            words.extend(&inner.tokens);
        }
    } else {
        line.no_body()?;
    }
    let (goes_on, words) = match words.split_first() {
        Some((first, rest)) if first.eq_ignore_ascii_case("continue") => (true, rest),
        Some((first, rest)) if first.eq_ignore_ascii_case("stop") => (false, rest),
        _ => (false, &*words),
    };
    let Some((field, args)) = words.split_first() else {
        return Err(line.error(format!("`rewrite` needs a field; known are: {FIELDS}")));
    };
    let field = match &*field.to_ascii_lowercase() {
        "name" => Field::Name(name_rule(field, args)?),
        "type" => {
            let [from, to] = exactly(field, args, "two types")?;
            let read = |word: &Token| {
                Rtype::from_text(word).ok_or_else(|| word.error(format!("`{word}` is not a type")))
            };
            Field::Type {
                from: read(from)?,
                to: read(to)?,
            }
        }
        "class" => {
            let [from, to] = exactly(field, args, "two classes")?;
            let read = |word: &Token| {
                Class::from_text(word).ok_or_else(|| word.error(format!("`{word}` is not a class")))
            };
            Field::Class {
                from: read(from)?,
                to: read(to)?,
            }
        }
        "ttl" => {
            let (names, rest) = names(field, args, 1)?;
            let [range] = exactly(field, rest, "names and a number of seconds or a range")?;
            let (least, most) = ttl_range(range)?;
            Field::Ttl { names, least, most }
        }
        "rcode" => {
            let (names, rest) = names(field, args, 2)?;
            let [from, to] = exactly(field, rest, "names and two response codes")?;
            Field::Rcode {
                names,
                from: rcode(from)?,
                to: rcode(to)?,
            }
        }
        "cname" => Field::Cname(cname_rule(field, args)?),
        "edns0" => Field::Edns0(edns_rule(field, args)?),
        "answer" => return Err(field.error("`answer` belongs behind a `name` rule")),
        _ => return Err(field.error(format!("unknown field `{field}`; known are: {FIELDS}"))),
    };
    Ok(Rule { goes_on, field })
}

fn exactly<'t, const N: usize>(
    field: &Token,
    args: &[&'t Token],
    what: &str,
) -> Result<[&'t Token; N], ConfigError> {
    <[&Token; N]>::try_from(args).map_err(|_| {
        field.error(format!(
            "`{field}` takes {what}, but has {} words",
            args.len()
        ))
    })
}

/// How names are matched: a kind and a text, or a text alone, which is then `exact`; `behind` words
/// follow. Also gives these.
fn names<'w, 't>(
    field: &Token,
    args: &'w [&'t Token],
    behind: usize,
) -> Result<(Matcher, &'w [&'t Token]), ConfigError> {
    match args {
        [text, rest @ ..] if rest.len() == behind => Ok((Matcher::Exact(qualified(text)), rest)),
        [kind, text, rest @ ..] if rest.len() >= behind => Ok((matcher(kind, text)?, rest)),
        _ => Err(field.error(format!("`{field}` needs names and {behind} more words"))),
    }
}

/// Lower case with a last dot. A name is not checked further: it may be a part of one.
fn qualified(text: &str) -> String {
    let mut text = text.to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

fn matcher(kind: &Token, text: &Token) -> Result<Matcher, ConfigError> {
    Ok(match &*kind.to_ascii_lowercase() {
        "exact" => Matcher::Exact(qualified(text)),
        "prefix" => Matcher::Prefix(qualified(text)),
        "suffix" => Matcher::Suffix(qualified(text)),
        "substring" => Matcher::Substring(qualified(text)),
        "regex" => Matcher::Regex(pattern(text)?),
        _ => {
            return Err(kind.error(format!(
                "names are not matched by `{kind}`; known are: {MATCHES}"
            )));
        }
    })
}

/// Refuses `to` when it has a group that the expression has not.
fn check_groups(from: &Matcher, to: &Token) -> Result<(), ConfigError> {
    let Matcher::Regex(pattern) = from else {
        return Ok(());
    };
    match highest_group(to) {
        Some(group) if group >= pattern.captures_len() => Err(to.error(format!(
            "`{to}` uses group {group}, but `{pattern}` has {}",
            pattern.captures_len() - 1
        ))),
        _ => Ok(()),
    }
}

fn name_rule(field: &Token, args: &[&Token]) -> Result<NameRule, ConfigError> {
    let (from, to, answers) = match args {
        [from, to] => (Matcher::Exact(qualified(from)), to, &[][..]),
        [kind, from, to, answers @ ..] => (matcher(kind, from)?, to, answers),
        _ => {
            return Err(
                field.error("`name` takes two names, perhaps a kind before and answers behind")
            );
        }
    };
    check_groups(&from, to)?;
    let (auto, answers) = answer_rules(answers)?;
    // The names of an exact rule are mapped back in any case.
    let auto = auto || matches!(from, Matcher::Exact(_));
    Ok(NameRule {
        from,
        to: qualified(to),
        auto,
        answers,
    })
}

/// `answer auto`, `answer name FROM TO`, `answer value FROM TO`; the word `answer` may be left out
/// after the first.
fn answer_rules(args: &[&Token]) -> Result<(bool, Vec<ResponseRule>), ConfigError> {
    let (mut auto, mut rules, mut named) = (false, Vec::new(), None);
    let mut rest = args;
    if let Some(first) = rest.first().filter(|first| &*first.text != "answer") {
        return Err(first.error(format!("expected `answer` or nothing, found `{first}`")));
    }
    while let Some((first, after)) = rest.split_first() {
        let (kind, after) = match after.split_first() {
            Some((kind, after)) if &*first.text == "answer" => (kind, after),
            None if &*first.text == "answer" => {
                return Err(first.error("expected `auto`, `name` or `value` after `answer`"));
            }
            _ => (first, after),
        };
        let is_name = &*kind.text == "name";
        rest = match (&*kind.text, after) {
            ("auto", after) => {
                auto = true;
                after
            }
            ("name" | "value", [from, to, after @ ..]) => {
                let from = Matcher::Regex(pattern(from)?);
                check_groups(&from, to)?;
                let Matcher::Regex(pattern) = from else {
                    continue;
                };
                let rewriter = Rewriter::Regex {
                    pattern,
                    to: qualified(to),
                };
                rules.push(if is_name {
                    ResponseRule::Names(rewriter)
                } else {
                    ResponseRule::Values(rewriter)
                });
                named = named.or(is_name.then_some(kind));
                after
            }
            ("name" | "value", _) => {
                return Err(kind.error(format!("`answer {kind}` takes an expression and a name")));
            }
            _ => {
                let message = format!("unknown answer `{kind}`; known are: auto, name, value");
                return Err(kind.error(message));
            }
        };
    }
    match named {
        Some(named) if auto => Err(named.error("`answer name` cannot stand beside `answer auto`")),
        _ => Ok((auto, rules)),
    }
}

/// `N`, `N-`, `-N`, `N-N`
fn ttl_range(range: &Token) -> Result<(u32, u32), ConfigError> {
    let wrong = || {
        range.error(format!(
            "expected seconds or a range such as 30-300, 30- or -30, found `{range}`"
        ))
    };
    let number = |text: &str| {
        let digits = text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse::<u32>()
            .ok()
            .filter(|_| digits)
            .ok_or_else(wrong)
    };
    let (least, most) = match range.split_once('-') {
        None => (number(range)?, number(range)?),
        Some(("", "")) => return Err(wrong()),
        Some(("", most)) => (0, number(most)?),
        Some((least, "")) => (number(least)?, TTL_MAX_S),
        Some((least, most)) => (number(least)?, number(most)?),
    };
    if least > most {
        Err(wrong())
    } else {
        Ok((least, most))
    }
}

fn rcode(word: &Token) -> Result<Rcode, ConfigError> {
    let number = word
        .parse()
        .ok()
        .filter(|number| *number <= RCODE_MAX)
        .map(Rcode);
    // RFC 8945 §3 and RFC 2930 §2.6: codes of TSIG and TKEY, which no answer of ours has.
    let by_name = || {
        Some(Rcode(match &*word.to_ascii_uppercase() {
            "BADSIG" => 16,
            "BADKEY" => 17,
            "BADTIME" => 18,
            "BADMODE" => 19,
            "BADNAME" => 20,
            "BADALG" => 21,
            "BADTRUNC" => 22,
            _ => return Rcode::from_text(word),
        }))
    };
    number
        .or_else(by_name)
        .ok_or_else(|| word.error(format!("`{word}` is not a response code")))
}

/// Only an exact rule makes whole names of its words here, as in the reference; an expression
/// matches whatever the case.
fn cname_rule(field: &Token, args: &[&Token]) -> Result<CnameRule, ConfigError> {
    let (kind, from, to) = match args {
        [from, to] => (None, *from, *to),
        [kind, from, to] => (Some(*kind), *from, *to),
        _ => return Err(field.error("`cname` takes two targets and perhaps a kind before")),
    };
    let lower = from.to_ascii_lowercase();
    let from = match kind.map(|kind| kind.to_ascii_lowercase()).as_deref() {
        None | Some("exact") => Matcher::Exact(qualified(from)),
        Some("prefix") => Matcher::Prefix(lower),
        Some("suffix") => Matcher::Suffix(lower),
        Some("substring") => Matcher::Substring(lower),
        Some("regex") => {
            let _checked = pattern(from)?;
            let expression = format!("(?i:{from})");
            let expression = regex::Regex::new(&expression);
            Matcher::Regex(expression.map_err(|problem| from.error(problem.to_string()))?)
        }
        Some(_) => return Err(field.error(format!("targets are matched by one of: {MATCHES}"))),
    };
    check_groups(&from, to)?;
    let to = match from {
        Matcher::Exact(_) => qualified(to),
        _ => to.to_ascii_lowercase(),
    };
    Ok(CnameRule { from, to })
}

fn edns_rule(field: &Token, args: &[&Token]) -> Result<EdnsRule, ConfigError> {
    let [kind, action, rest @ ..] = args else {
        return Err(
            field.error("`edns0` takes local, nsid or subnet, then set, append, replace or unset")
        );
    };
    let action = match &*action.to_ascii_lowercase() {
        "set" => Action::Set,
        "append" => Action::Append,
        "replace" => Action::Replace,
        "unset" => Action::Unset,
        _ => {
            let known = "set, append, replace, unset";
            return Err(action.error(format!("unknown action `{action}`; known are: {known}")));
        }
    };
    let (revert, rest) = match rest.split_last() {
        Some((last, rest)) if &*last.text == "revert" && action != Action::Unset => (true, rest),
        _ => (false, rest),
    };
    let unset = action == Action::Unset;
    let (code, content) = match (&*kind.to_ascii_lowercase(), rest) {
        ("local", [code]) if unset => (option_code(code)?, Content::Nothing),
        ("local", [code, data]) if !unset => (option_code(code)?, local_content(data)?),
        ("nsid", []) => (NSID, Content::Fixed(Vec::new())),
        ("subnet", []) if unset => (SUBNET, Content::Nothing),
        ("subnet", [v4, v6]) if !unset => {
            let v4 = v4.number("the prefix length for IPv4", 0..=32)?;
            let v6 = v6.number("the prefix length for IPv6", 0..=128)?;
            (SUBNET, Content::Subnet { v4, v6 })
        }
        ("local", _) => {
            return Err(kind.error("`local` takes a code and data, with `unset` a code alone"));
        }
        ("nsid", _) => return Err(kind.error("`nsid` takes nothing behind the action")),
        ("subnet", _) => {
            return Err(kind.error("`subnet` takes two prefix lengths, with `unset` nothing"));
        }
        _ => {
            return Err(kind.error(format!(
                "unknown option `{kind}`; known are: local, nsid, subnet"
            )));
        }
    };
    Ok(EdnsRule {
        action,
        code,
        content,
        revert,
    })
}

/// A number, also with `0x` in front.
fn option_code(word: &Token) -> Result<u16, ConfigError> {
    let number = match word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    };
    number.ok_or_else(|| {
        word.error(format!(
            "expected the code of an option, such as 0xffee, found `{word}`"
        ))
    })
}

/// `0x…` is octets, `{…}` a variable, all else is text.
fn local_content(word: &Token) -> Result<Content, ConfigError> {
    if let Some(hex) = word.strip_prefix("0x") {
        let octets = (0..hex.len()).step_by(2).map(|at| {
            hex.get(at..at + 2)
                .and_then(|octet| u8::from_str_radix(octet, 16).ok())
        });
        let octets: Option<Vec<u8>> = octets.collect();
        return octets
            .filter(|_| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .map(Content::Fixed)
            .ok_or_else(|| {
                word.error(format!(
                    "`{word}` is not a whole number of octets in hexadecimal"
                ))
            });
    }
    let variable = word
        .strip_prefix('{')
        .and_then(|word| word.strip_suffix('}'));
    Ok(match variable {
        None => Content::Fixed(word.as_bytes().to_vec()),
        Some("qname") => Content::QueryName,
        Some("qtype") => Content::QueryType,
        Some("client_ip") => Content::ClientIp,
        Some("client_port") => Content::ClientPort,
        Some("protocol") => Content::Protocol,
        Some("server_ip") => Content::ServerIp,
        Some("server_port") => Content::ServerPort,
        Some(label) if label.contains('/') => {
            tracing::warn!(
                "{}: the rule does nothing: no plugin of ours publishes metadata such as `{label}`",
                word.at
            );
            Content::Nothing
        }
        Some(_) => {
            let known = "{qname}, {qtype}, {client_ip}, {client_port}, {protocol}, {server_ip}, {server_port}";
            return Err(word.error(format!("unknown variable `{word}`; known are: {known}")));
        }
    })
}
