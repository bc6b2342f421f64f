//! How a sandbox's files deviate from a plain directory: each row of the list in `docs/worlds.md`, as
//! root and as an ordinary user. What is said here of a plain directory is held against one.

use super::holder::Holder;
use super::plain::Plain;
use super::{Folder, is_root};

const PROGRAM: &str = "
import errno, mmap, os, stat, sys
try:
    exec(sys.stdin.read())
except OSError as error:
    print(errno.errorcode[error.errno])
";

struct Deviation {
    /// As the list names it.
    name: &'static str,
    /// Programs; after each is a seal. The last one says something.
    steps: &'static [&'static str],
    plain: &'static str,
    root: &'static str,
    user: &'static str,
}

#[rustfmt::skip]
const DEVIATIONS: &[Deviation] = &[
    Deviation {
        name: "renaming a sealed directory",
        steps: &["os.mkdir('d')", "os.rename('d', 'e'); print('done')"],
        plain: "done", root: "done", user: "EXDEV",
    },
    Deviation {
        name: "renaming a sealed directory with a path of more than 256 bytes",
        steps: &["os.makedirs('l' * 200 + '/' + 'm' * 100)", "os.rename('l' * 200 + '/' + 'm' * 100, 'n'); print('done')"],
        plain: "done", root: "EXDEV", user: "EXDEV",
    },
    Deviation {
        name: "writing a sealed file of two names",
        steps: &["open('a', 'w').write('1'); os.link('a', 'b')", "open('a', 'w').write('2'); print(open('b').read())"],
        plain: "2", root: "2", user: "1",
    },
    Deviation {
        name: "a count of links when a sealed name is gone",
        steps: &["open('a', 'w').write('1'); os.link('a', 'b')", "os.unlink('b')", "print(os.stat('a').st_nlink)"],
        plain: "1", root: "1", user: "2",
    },
    Deviation {
        name: "the date of the workspace itself",
        steps: &["open('a', 'w'); os.utime('.', (5, 5))", "print(os.stat('.').st_mtime == 5)"],
        plain: "True", root: "False", user: "False",
    },
    Deviation {
        name: "attributes of the workspace itself",
        steps: &["open('a', 'w'); os.setxattr('.', 'user.a', b'1')", "print('user.a' in os.listxattr('.'))"],
        plain: "True", root: "False", user: "False",
    },
    Deviation {
        name: "the set-gid bit of the workspace itself",
        steps: &["open('a', 'w'); os.chmod('.', 0o2755)", "print(oct(os.stat('.').st_mode))"],
        plain: "0o42755", root: "0o40755", user: "0o40755",
    },
    Deviation {
        name: "the date of a directory, in a step that did nothing else",
        steps: &["os.mkdir('d')", "os.utime('d', (5, 5))", "print(os.stat('d').st_mtime == 5)"],
        plain: "True", root: "False", user: "False",
    },
    Deviation {
        name: "holes of less than a mebibyte, when a sealed file is written",
        steps: &["f = open('a', 'wb'); f.write(b'x' * 4096); f.truncate(500_000)", "open('a', 'ab').write(b'y'); print(os.stat('a').st_blocks * 512 < 100_000)"],
        plain: "True", root: "False", user: "False",
    },
    Deviation {
        name: "a mapping that is older than the first write of a sealed file",
        steps: &["open('a', 'w').write('1')", "m = mmap.mmap(os.open('a', os.O_RDONLY), 1, prot=mmap.PROT_READ); f = open('a', 'w'); f.write('2'); f.close(); print(m[:])"],
        plain: "b'2'", root: "b'1'", user: "b'1'",
    },
    Deviation {
        name: "giving a file to somebody else",
        steps: &["open('a', 'w'); os.chown('a', 12345, -1)"],
        plain: "EPERM", root: "EINVAL", user: "EINVAL",
    },
    Deviation {
        name: "a device with the number 0, 0",
        steps: &["os.mknod('w', stat.S_IFCHR | 0o600, 0); print('done')"],
        plain: "done", root: "EACCES", user: "EACCES",
    },
];

/// What the last step says inside, and in the plain directory.
fn both(steps: &[&str]) -> (String, String) {
    let (home, plain) = (Folder::new(), Plain::new());
    let dir = plain.empty();
    let mut holder = Holder::start(&home.0, PROGRAM);
    let mut layer = holder.ask("empty").unwrap();
    let mut said = (Vec::new(), Vec::new());
    for step in steps {
        let file = plain.file(step);
        let upper = holder.ask(&format!("begin {layer}")).unwrap();
        let outside = plain.start(&dir, &file, PROGRAM);
        said = (holder.run(&upper, &file).unwrap(), outside.end());
        if holder.ask(&format!("seal {upper}")).unwrap() != "unchanged" {
            layer = upper;
        }
    }
    (said.0.join(" "), said.1.join(" "))
}

#[test]
fn each_deviation_is_as_it_is_listed() {
    let mut wrong = Vec::new();
    for Deviation { name, steps, plain, root, user } in DEVIATIONS {
        let expected = if is_root() { *root } else { *user };
        let (inside, outside) = both(steps);
        if (inside.as_str(), outside.as_str()) != (expected, *plain) {
            wrong.push(format!("{name}: {inside}, not {expected}; plain {outside}, not {plain}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_lists_each_deviation() {
    let page = include_str!("../../../../docs/worlds.md");
    for deviation in DEVIATIONS {
        assert!(page.contains(deviation.name), "{} is not in docs/worlds.md", deviation.name);
    }
}
