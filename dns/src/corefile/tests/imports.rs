//! Imports of real files.

use std::fs;
use std::path::Path;

use super::super::{CONFIG_BYTES_LIMIT, load};
use super::{parsed_in, shown};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn meaning(text: &str, folder: &Path) -> Result<String, String> {
    let shown = parsed_in(text, folder).map(|corefile| shown(&corefile));
    // The place of the folder is another one each time.
    let place = folder.display().to_string();
    shown.map_err(|error| error.replace(&place, "@"))
}

#[test]
fn files_are_put_in_the_place_of_their_import() {
    let folder = folder(&[
        ("lines", "errors\nlog . {\n class error\n}"),
        ("blocks", "a {\n log\n}\nb {\n}"),
        ("keys", "c\nd"),
        ("empty", "\n# nothing\n"),
        ("sub/one", "import two\n"),
        ("sub/two", "log two"),
        ("two", "log not this one"),
        ("sub/snippet", "(s) {\n import two\n}"),
        ("custom/b.override", "log b"),
        ("custom/a.override", "log a"),
        ("custom/c.server", "c.org {\n}"),
        ("custom/folder.override/x", ""),
        (".hidden.override", "log hidden"),
        ("x1/conf", "log x1"),
        ("x2/conf", "log x2"),
        ("self", "log again\nimport self"),
        ("open", "log {"),
        ("bad", "log\n}"),
    ]);
    let cases = [
        (
            ". {\n import lines\n cache\n}",
            Ok("[.] errors; log . { class error; }; cache;"),
        ),
        ("import blocks\n. {\n}", Ok("[a] log; | [b] | [.]")),
        ("import empty\n. {\n}", Ok("[.]")),
        (". {\n import empty\n}", Ok("[.]")),
        (
            ". {\n import ./lines\n}",
            Ok("[.] errors; log . { class error; };"),
        ),
        ("x,\nimport keys", Ok("[x c] d;")),
        // Relative to the file that imports, and a snippet to the file it stands in.
        (". {\n import sub/one\n}", Ok("[.] log two;")),
        ("import sub/snippet\n. {\n import s\n}", Ok("[.] log two;")),
        // Patterns: in order, without folders; nothing found is no error.
        (". {\n import custom/*.override\n}", Ok("[.] log a; log b;")),
        ("import custom/*.server\n. {\n}", Ok("[c.org] | [.]")),
        (". {\n import *.override\n}", Ok("[.] log hidden;")),
        (". {\n import x?/conf\n}", Ok("[.] log x1; log x2;")),
        (". {\n import none*/conf\n log\n}", Ok("[.] log;")),
        // Braces may be closed by whoever imports.
        (
            ". {\n import open\n class all\n}\n}",
            Ok("[.] log { class all; };"),
        ),
        (
            ". {\n import custom\n}",
            Err(
                "Corefile:2: cannot import `custom`: no snippet has this name, and @/custom is not a regular file",
            ),
        ),
        (
            ". {\n import self\n}",
            Err("@/self:2: more than 64 imports within each other; does `self` import itself?"),
        ),
        (
            ".\nimport bad\n",
            Err("@/bad:2: unexpected `}`: no block is open here"),
        ),
        (
            ". {\n log\n import open\n}",
            Err(
                "Corefile:1: the `{` opened here is never closed; expected `}` before the end of the file",
            ),
        ),
    ];
    for (text, expected) in cases {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(meaning(text, folder.path()), expected, "{text}");
    }
}

#[test]
fn a_file_is_loaded_with_its_name_in_the_places() {
    let folder = folder(&[
        ("Corefile", ". {\n import more\n}"),
        ("more", "log\n\nerrors {"),
    ]);
    fs::write(folder.path().join("latin"), b".\nlog \xe9\n").unwrap();
    let failed = |name: &str| {
        let error = load(&folder.path().join(name)).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "@")
    };
    assert_eq!(
        failed("Corefile"),
        "@/Corefile:1: the `{` opened here is never closed; expected `}` before the end of the file"
    );
    assert_eq!(failed("latin"), "@/latin is not UTF-8 in line 2");
    assert_eq!(
        failed("gone"),
        "cannot read @/gone: No such file or directory (os error 2)"
    );

    fs::write(folder.path().join("more"), "log\n\nerrors").unwrap();
    let corefile = load(&folder.path().join("Corefile")).unwrap();
    assert_eq!(shown(&corefile), "[.] log; errors;");
    let place = corefile.blocks[0].directives[1].name().at.to_string();
    assert_eq!(place, format!("{}:3", folder.path().join("more").display()));
}

#[test]
fn more_text_than_the_limit_is_refused() {
    let folder = folder(&[("Corefile", "import long\n")]);
    let long = fs::File::create(folder.path().join("long")).unwrap();
    long.set_len(CONFIG_BYTES_LIMIT).unwrap();
    let error = load(&folder.path().join("Corefile"))
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("is too long: more than 16777216 bytes of configuration in all"),
        "{error}"
    );
}
