//! Texts with what they mean, and texts with what is wrong with them.

use super::{parsed, shown};

#[test]
fn texts_mean_what_the_reference_takes_them_for() {
    let cases = [
        // Nothing at all.
        ("", ""),
        ("\u{feff}", ""),
        ("  \n\t\r\n", ""),
        ("# nothing", ""),
        (r#""""#, ""),
        // Keys.
        (".", "[.]"),
        (".:53 {\n}", "[.:53]"),
        (".:53\n{\n}", "[.:53]"),
        (". { }", "[.]"),
        ("a b {\n}", "[a b]"),
        ("a, b {\n}", "[a b]"),
        ("a,b {\n}", "[a b]"),
        ("a,\nb,\n  c {\n}", "[a b c]"),
        ("a,\nb", "[a b]"),
        ("a {\n}\nb {\n}", "[a] | [b]"),
        ("a {\n} b {\n}", "[a] | [b]"),
        // Directives with braces around and without.
        (". {\n log\n errors\n}", "[.] log; errors;"),
        (".\nlog\nerrors", "[.] log; errors;"),
        (
            ".\nforward . 1.1.1.1\ncache 30 {\n success 10\n}\n",
            "[.] forward . 1.1.1.1; cache 30 { success 10; };",
        ),
        ("a {\n log\n}\nb\nerrors\n", "[a] log; | [b] errors;"),
        (". {\n cache {\n }\n}", "[.] cache { };"),
        (
            ". {\n cache\n {\n  success 10\n }\n}",
            "[.] cache { success 10; };",
        ),
        (
            ". {\n a {\n  b c {\n   d\n  }\n  e\n }\n}",
            "[.] a { b c { d; }; e; };",
        ),
        // On one line.
        (". { log }", "[.] log;"),
        (
            ". { cache 30 { success 10 } }",
            "[.] cache 30 { success 10; };",
        ),
        (
            ". { health { lameduck 5s }\n log }",
            "[.] health { lameduck 5s; }; log;",
        ),
        // Comments.
        ("# top\n. { # after\n log # all\n #errors\n}", "[.] log;"),
        (
            ". {\n forward . 1.1.1.1#not this one\n}",
            "[.] forward . 1.1.1.1;",
        ),
        (". {\n log # } is no brace\n}", "[.] log;"),
        (
            ". {\n log \"# is no comment\"\n}",
            "[.] log \"# is no comment\";",
        ),
        // Strings.
        (". {\n log \"a b\" c\n}", "[.] log \"a b\" c;"),
        (". {\n log \"\" c\n}", "[.] log \"\" c;"),
        (
            ". {\n log \"say \\\"hi\\\"\"\n}",
            "[.] log \"say \\\"hi\\\"\";",
        ),
        (". {\n match \"a\\.b\\\\c\"\n}", "[.] match a\\.b\\\\c;"),
        (". {\n match ^a\\.b$\n}", "[.] match ^a\\.b$;"),
        (". {\n log a\"b c\n}", "[.] log \"a\\\"b\" c;"),
        (". {\n log \"a\"b\n}", "[.] log a b;"),
        (
            ". {\n answer \"a\n b\" c\n log\n}",
            "[.] answer \"a\\n b\" c; log;",
        ),
        (". {\n log \"{\" \"}\"\n}", "[.] log \"{\" \"}\";"),
        (". {\n \"import\" x\n}", "[.] import x;"),
        (
            ". {\n answer \"{{ .Name }} A\"\n}",
            "[.] answer \"{{ .Name }} A\";",
        ),
        (
            ". {\n answer {{.Name}} {x} }}\n}",
            "[.] answer \"{{.Name}}\" \"{x}\" \"}}\";",
        ),
        // A backslash at the end of a line is a word like any other.
        (". {\n log \\\n errors\n}", "[.] log \\; errors;"),
        // Other spaces and line ends.
        (".:53 {\r\n\tlog\r\n}\r\n", "[.:53] log;"),
        ("\u{feff}.:53 {\n}", "[.:53]"),
        ("a\u{a0}b\u{2003}c", "[a b c]"),
        // Variables.
        ("{$ZONE}:{%PORT%} {\n}", "[example.org:1053]"),
        ("{$UNSET} . {\n}", "[.]"),
        (
            ". {\n log {$SPACED} \"x {$ZONE}\"\n}",
            "[.] log \"a b\" \"x example.org\";",
        ),
        (". {\n log {$UNSET} {$BRACE}\n}", "[.] log \"\" \"{\";"),
        (
            ". {\n log {$ZONE {%ZONE} {$}\n}",
            "[.] log \"{$ZONE\" \"{%ZONE}\" \"{$}\";",
        ),
        // Snippets.
        (
            "(s) {\n log\n errors\n}\n. {\n import s\n}",
            "[.] log; errors;",
        ),
        (
            "(s) {\n success 1\n}\n. {\n cache {\n  import s\n  denial 2\n }\n}",
            "[.] cache { success 1; denial 2; };",
        ),
        (
            "(s) { log a }\n. {\n import s\n import s\n}",
            "[.] log a; log a;",
        ),
        ("(s) { log a }\n. { import s }", "[.] log a;"),
        (
            "(a) {\n log\n}\n(b) {\n import a\n errors\n}\n. {\n import b\n}",
            "[.] log; errors;",
        ),
        (
            "(s) {\n x.org {\n  log\n }\n}\nimport s\n. {\n}",
            "[x.org] log; | [.]",
        ),
        ("(s) {\n}\n. {\n import s\n log\n}", "[.] log;"),
        (
            "(a) {\n log {$ZONE}\n}\n. {\n import a\n}",
            "[.] log example.org;",
        ),
        (". {\n log import\n}", "[.] log import;"),
    ];
    for (text, expected) in cases {
        assert_eq!(
            parsed(text).as_ref().map(shown).as_deref(),
            Ok(expected),
            "{text}"
        );
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cases = [
        ("a,", "Corefile:1: expected another key after the comma"),
        (
            "a, {\n}",
            "Corefile:1: expected another key after the comma, found `{`",
        ),
        (
            "\n{\n}",
            "Corefile:2: expected what the server block serves (a zone such as `.`), found `{`",
        ),
        (
            "{$UNSET} {\n}",
            "Corefile:1: expected what the server block serves (a zone such as `.`), found `{`",
        ),
        (
            ".:53{\n}",
            "Corefile:1: expected spaces around the brace of `.:53{`",
        ),
        (
            ". {}",
            "Corefile:1: expected spaces around the brace of `{}`",
        ),
        ("}", "Corefile:1: unexpected `}`: no block is open here"),
        (
            ". {\n log\n}\n}",
            "Corefile:4: unexpected `}`: no block is open here",
        ),
        (
            ".\nlog\n}",
            "Corefile:3: unexpected `}`: no block is open here",
        ),
        (
            ". {\n log\n",
            "Corefile:1: the `{` opened here is never closed; expected `}` before the end of the file",
        ),
        (
            ". {\n cache {\n",
            "Corefile:2: the `{` opened here is never closed; expected `}` before the end of the file",
        ),
        (
            ". {\n cache {\n}\nb {\n}",
            "Corefile:1: the `{` opened here is never closed; expected `}` before the end of the file",
        ),
        (
            "(s) {\n log {\n }",
            "Corefile:1: the `{` opened here is never closed; expected `}` before the end of the file",
        ),
        (
            ". {\n {\n }\n}",
            "Corefile:2: expected the name of a directive, found `{`",
        ),
        (
            ". {\n a { } { }\n}",
            "Corefile:2: expected the name of a directive, found `{`",
        ),
        (
            ". {\n a { } b\n}",
            "Corefile:2: expected a new line after `}`, found `b`",
        ),
        (
            ". {\n log \"a\n b\n}",
            "Corefile:2: the string that begins here is never closed; expected another `\"` before the end of Corefile",
        ),
        (
            ". {\n log \"a\\",
            "Corefile:2: the string that begins here is never closed; expected another `\"` before the end of Corefile",
        ),
        (
            "(s)\nlog",
            "Corefile:1: expected `{` after the snippet `(s)`",
        ),
        (
            "(s) {\n}\n\n(s) {\n}",
            "Corefile:4: the snippet `s` is already defined at Corefile:1",
        ),
        (
            ". {\n import\n}",
            "Corefile:2: `import` takes the name of a snippet, a file or a pattern, but has no argument",
        ),
        (
            ". {\n import a b\n}",
            "Corefile:2: `import` takes the name of a snippet, a file or a pattern, but has 2 arguments",
        ),
        (
            ". {\n import {$UNSET}\n}",
            "Corefile:2: `import` needs the name of a snippet, a file or a pattern, not an empty one",
        ),
        (
            "(s) {\n log\n}\n. {\n import s {\n }\n}",
            "Corefile:5: `import` takes no block in braces",
        ),
        (
            "(s) {\n import s\n}\n. {\n import s\n}",
            "Corefile:2: more than 64 imports within each other; does `s` import itself?",
        ),
        (
            "(s) {\n import t\n}\n(t) {\n log\n import s\n}\nimport s",
            "Corefile:6: more than 64 imports within each other; does `s` import itself?",
        ),
        (
            ". {\n import gone\n}",
            "Corefile:2: cannot import `gone`: no snippet has this name, and /nowhere/gone: No such file or directory (os error 2)",
        ),
        (
            "import a*b*\n",
            "Corefile:1: cannot import `a*b*`: no snippet has this name, and `a*b*` may have one `*` and one `?`, but has more",
        ),
        // A snippet is known from where it stands.
        (
            ". {\n import s\n}\n(s) {\n}",
            "Corefile:2: cannot import `s`: no snippet has this name, and /nowhere/s: No such file or directory (os error 2)",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(
            parsed(text).map(|got| shown(&got)),
            Err(expected.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn braces_within_braces_have_a_limit() {
    let deep = |braces: usize| format!(". {{{}{}}}", " a {\n".repeat(braces), "}\n".repeat(braces));
    assert!(parsed(&deep(16)).is_ok());
    let error = parsed(&deep(17)).unwrap_err();
    assert_eq!(error, "Corefile:17: more than 16 blocks within each other");
}

#[test]
fn snippets_that_double_are_stopped() {
    let mut text = "(s0) {\n log\n}\n".to_owned();
    for level in 1..40 {
        let below = level - 1;
        text += &format!("(s{level}) {{\n import s{below}\n import s{below}\n}}\n");
    }
    let error = parsed(&(text + ". {\n import s39\n}")).unwrap_err();
    assert!(error.ends_with("more than 10000 imports in all"), "{error}");
}

#[test]
fn tokens_know_their_lines() {
    let corefile =
        parsed("# one\n.:53 {\n log \"a\nb\" c\n cache {\n  success 1\n }\n}\nx\n").unwrap();
    let [root, x] = corefile.blocks.as_slice() else {
        panic!("{}", shown(&corefile))
    };
    assert_eq!(root.keys[0].at.to_string(), "Corefile:2");
    assert_eq!(root.directives[0].tokens[1].at.line, 3);
    assert_eq!(root.directives[0].tokens[2].at.line, 4);
    assert_eq!(root.directives[1].options()[0].name().at.line, 6);
    assert_eq!(x.keys[0].at.line, 9);
}

#[test]
fn the_hash_is_of_what_is_said_not_of_how() {
    let hash = |text: &str| parsed(text).unwrap().hash;
    let one = hash(". {\n log a\n}");
    assert_eq!(one, hash("# why\n.\n{\n\tlog \"a\" # here\n}\n"));
    assert_eq!(one, hash("(s) {\n log a\n}\n. {\n import s\n}"));
    for other in [
        "",
        ". {\n log b\n}",
        ". {\n log a {\n }\n}",
        ". {\n log\n a\n}",
        ". log {\n a\n}",
        ". {\n loga\n}",
    ] {
        assert_ne!(one, hash(other), "{other}");
    }
}
