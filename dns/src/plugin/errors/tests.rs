use std::sync::Arc;
use std::time::Duration;

use crate::lines::tests::Kept;
use crate::plugin::trial::{Behind, Trial, query};
use crate::plugin::{Plugin, Step};
use crate::wire::{EdeCode, Rcode};

fn failing() -> Arc<dyn Plugin> {
    Behind::new("fails", |exchange| {
        let reason = exchange.question.name().to_string();
        exchange.explain(EdeCode::OTHER, reason.trim_end_matches('.'));
        Step::Fail(Rcode::SERVFAIL)
    })
}

async fn told(directives: &str, questions: &[&str], number: usize) -> Vec<String> {
    let kept = Kept::default();
    let environment = kept.environment();
    let block = Trial::in_environment(directives, vec![failing()], &environment).unwrap();
    for question in questions {
        let _answered = block.run(&mut query(question)).await;
    }
    drop(block);
    kept.lines(number)
}

#[tokio::test]
async fn an_error_is_one_line_with_the_code_as_a_number() {
    let lines = told("errors", &["Slow. AAAA", "a. TYPE65280"], 2).await;
    assert_eq!(
        lines,
        [
            "[ERROR] plugin/errors: 2 slow. AAAA: Slow",
            "[ERROR] plugin/errors: 2 a. TYPE65280: a"
        ]
    );
}

#[tokio::test]
async fn errors_of_one_kind_are_counted_by_the_first_pattern_that_matches() {
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "consolidate 5m ^a warning\nconsolidate 30s .",
            &["ab. A", "ac. A", "b. A"],
            &[
                "[WARNING] plugin/errors: 2 errors like '^a' occurred in last 5m0s",
                "[ERROR] plugin/errors: 1 errors like '.' occurred in last 30s",
            ],
        ),
        (
            "consolidate 30s . info show_first",
            &["a. A", "b. A", "c. A"],
            &[
                "[INFO] plugin/errors: 2 a. A: a",
                "[INFO] plugin/errors: 3 errors like '.' occurred in last 30s",
            ],
        ),
        (
            "consolidate 30s . show_first",
            &["a. A"],
            &["[ERROR] plugin/errors: 2 a. A: a"],
        ),
        ("consolidate 30s ^a debug", &["a. A"], &[]),
    ];
    for (option, questions, expected) in cases {
        let directives = format!("errors {{\n{option}\n}}");
        assert_eq!(
            told(&directives, questions, expected.len()).await,
            expected,
            "{option}"
        );
    }
}

#[tokio::test]
async fn a_period_ends_while_the_server_runs() {
    let kept = Kept::default();
    let environment = kept.environment();
    let directives = "errors {\nconsolidate 20ms .\n}";
    let block = Trial::in_environment(directives, vec![failing()], &environment).unwrap();
    for expected in 1..=2 {
        let _answered = block.run(&mut query("a. A")).await;
        let _answered = block.run(&mut query("a. A")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let lines = kept.lines(expected);
        assert_eq!(lines.len(), expected);
        assert_eq!(
            lines[0],
            "[ERROR] plugin/errors: 2 errors like '.' occurred in last 20ms"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let long = format!("errors {{\nconsolidate 1m {}\n}}", "a".repeat(10_001));
    let cases = [
        (
            "errors stderr",
            "errors are printed to `stdout` only, not to `stderr`",
        ),
        (
            "errors {\nfoo\n}",
            "unknown option `foo`; known are: stacktrace, consolidate",
        ),
        (
            "errors {\nconsolidate 1m\n}",
            "`consolidate` takes a duration, a regular",
        ),
        (
            "errors {\nconsolidate 1 a\n}",
            "the period of `consolidate` must be a duration",
        ),
        ("errors {\nconsolidate 1m (\n}", "regex parse error"),
        (
            "errors {\nconsolidate 1m a loud\n}",
            "`loud` is neither a level",
        ),
        (
            "errors {\nconsolidate 1m a show_first info\n}",
            "expected one level, and then",
        ),
        (
            "errors {\nconsolidate 1m a info error\n}",
            "expected one level, and then",
        ),
        ("errors\nerrors", "`errors` may be given once"),
        (&long, "a pattern has at most 10000 octets"),
    ];
    for (directives, expected) in cases {
        let message = Trial::refused(directives);
        assert!(message.starts_with(expected), "{directives}: {message}");
    }
}
