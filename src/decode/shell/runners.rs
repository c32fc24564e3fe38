//! Programs that run another program: one that their arguments name, or that files in the folder name that
//! they work in.
//!
//! Such a line is not simple: whoever allowed the program did not allow what it would run. Long
//! options may be abbreviated (GNU getopt takes every prefix that fits one option only), and short
//! ones stand in clusters; where that is not certain, the line counts as one that runs something.
//!
//! Limits: this is a list, of what Debian installs and what such rules are written for. A program
//! that is not in it (of the operator's own, say) is judged by its path alone, and a program of it without
//! arguments by nothing that it reads, but for those that read their folder. Sources: the programs' manual pages (coreutils, findutils, tar, git, rsync,
//! OpenSSH), and <https://gtfobins.github.io> for what is missed most.

/// Programs whose arguments, or whose own language, name what they run.
const ALWAYS: &[&str] = &[
    ".",
    "R",
    "Rscript",
    "aa-exec",
    "ash",
    "at",
    "autossh",
    "awk",
    "bash",
    "batch",
    "builtin",
    "busybox",
    "bwrap",
    "c++",
    "c89",
    "c89-gcc",
    "c99",
    "c99-gcc",
    "capsh",
    "cc",
    "choom",
    "chroot",
    "chrt",
    "clang",
    "clang++",
    "command",
    "coproc",
    "coresched",
    "cpp",
    "cpulimit",
    "crontab",
    "csh",
    "daemonize",
    "dash",
    "dbus-launch",
    "dbus-run-session",
    "debconf",
    "debconf-apt-progress",
    "debugfs",
    "doas",
    "dpkg-architecture",
    "eatmydata",
    "ed",
    "emacs",
    "entr",
    "env",
    "eval",
    "ex",
    "exec",
    "expect",
    "fakeroot",
    "faketime",
    "firejail",
    "fish",
    "flock",
    "ftp",
    "g++",
    "gawk",
    "gcc",
    "gcov-tool",
    "gdb",
    "gdbserver",
    "ghc",
    "guile",
    "i386",
    "i486",
    "i586",
    "i686",
    "instmodsh",
    "ionice",
    "java",
    "jrunscript",
    "jshell",
    "julia",
    "ksh",
    "kubectl",
    "ld",
    "ld.bfd",
    "ld.gold",
    "ldd",
    "less",
    "lftp",
    "linux32",
    "linux64",
    "lldb",
    "logrotate",
    "logsave",
    "lto-dump",
    "ltrace",
    "lua",
    "m4",
    "man",
    "mawk",
    "more",
    "mosh",
    "nano",
    "nawk",
    "nc",
    "ncat",
    "netcat",
    "newgrp",
    "nice",
    "node",
    "nodejs",
    "nohup",
    "nsenter",
    "numactl",
    "nvim",
    "ocaml",
    "octave",
    "parallel",
    "pdb",
    "perf",
    "perl",
    "pg_virtualenv",
    "phar",
    "php",
    "pkexec",
    "prlimit",
    "pydoc",
    "rbash",
    "rlwrap",
    "rpmbuild",
    "rsync-ssl",
    "ruby",
    "run-parts",
    "runuser",
    "rview",
    "rvim",
    "scalar",
    "screen",
    "script",
    "setarch",
    "setlock",
    "setpriv",
    "setsid",
    "sftp",
    "sg",
    "sh",
    "slogin",
    "socat",
    "softlimit",
    "source",
    "sqlite3",
    "sqlplus",
    "ssh",
    "ssh-agent",
    "ssh-copy-id",
    "sshpass",
    "start-stop-daemon",
    "startx",
    "stdbuf",
    "strace",
    "su",
    "sudo",
    "systemd-run",
    "taskset",
    "tclsh",
    "tcsh",
    "telnet",
    "time",
    "timeout",
    "tmux",
    "toybox",
    "trap",
    "uclampset",
    "unbuffer",
    "unshare",
    "valgrind",
    "vi",
    "view",
    "vim",
    "vimdiff",
    "watch",
    "wish",
    "x86_64",
    "xargs",
    "xdg-open",
    "xinit",
    "xvfb-run",
    "zsh",
];

/// Interpreters that carry their version in the name: `python3.11`, `ld-linux-x86-64.so.2`.
const ALWAYS_BEGINNING: &[&str] = &[
    "ld-linux", "ld-musl", "ld.so", "lua5", "perl5", "php", "pypy", "python", "ruby", "tclsh",
    "vim.",
];

/// What the names of compilers for one machine begin with: `x86_64-linux-gnu-gcc-12`.
const MACHINES: &str = "-linux-gnu";

const MYSQL: &[&str] =
    &["defaults-extra-file", "defaults-file", "execute", "init-command", "pager", "tee"];

/// Programs of which some options run a program, or read their own options from a file: their long
/// options without dashes, their short ones, and words that do so by themselves.
const BY_OPTION: &[(&str, &[&str], &str, &[&str])] = &[
    (
        "find",
        &[],
        "",
        &[
            "-exec", "-execdir", "-ok", "-okdir", "-fprint", "-fprint0", "-fprintf", "-fls",
            "-delete",
        ],
    ),
    ("apt", &["config-file", "option"], "co", &["changelog", "edit-sources"]),
    ("apt-get", &["config-file", "option"], "co", &["changelog"]),
    ("dpkg", &["install", "post-invoke", "pre-invoke"], "i", &[]),
    ("ip", &["batch"], "b", &["exec", "vrf"]),
    ("apache2", &[], "CDcdfk", &[]),
    ("ar", &["plugin"], "", &[]),
    ("httpd", &[], "CDcdfk", &[]),
    ("mariadb", MYSQL, "e", &[]),
    ("mysql", MYSQL, "e", &[]),
    ("nginx", &[], "cgp", &[]),
    ("nm", &["plugin"], "", &[]),
    ("psql", &["file", "variable"], "fv", &[]),
    (
        "rsync",
        &["rsh", "rsync-path", "daemon", "config", "files-from", "log-file", "early-input"],
        "e",
        &[],
    ),
    ("ranlib", &["plugin"], "", &[]),
    ("scp", &[], "SoFDJ", &[]),
    ("sort", &["compress-program"], "", &[]),
    ("split", &["filter"], "", &[]),
    (
        "rpm",
        &["eval", "define", "pipe", "rcfile", "macros", "load", "install", "upgrade", "freshen"],
        "DEFUi",
        &[],
    ),
    ("ssh-add", &[], "sS", &[]),
    ("ssh-keygen", &[], "Dw", &[]),
    ("sshd", &[], "fo", &[]),
    ("systemctl", &["host"], "H", &["edit", "import-environment", "link", "set-environment"]),
    (
        "tar",
        &[
            "checkpoint-action",
            "info-script",
            "new-volume-script",
            "rmt-command",
            "rsh-command",
            "to-command",
            "use-compress-program",
        ],
        "IF",
        &[],
    ),
    ("tcpdump", &[], "zwZ", &[]),
    ("wget", &["use-askpass", "execute", "config"], "e", &[]),
    ("zip", &["unzip-command"], "T", &[]),
];

/// Programs that run what files in their folder say, or in one that they are named: hooks and settings of
/// repositories (`core.fsmonitor` of git), recipes, build scripts, plugins. They do so without any
/// argument, and whoever may write such a file chooses what runs.
const BY_FILES: &[&str] = &[
    "ansible",
    "ansible-playbook",
    "ant",
    "bazel",
    "bazelisk",
    "bmake",
    "bun",
    "bundle",
    "bundler",
    "bunx",
    "bzr",
    "cabal",
    "cargo",
    "cmake",
    "composer",
    "conda",
    "corepack",
    "cpack",
    "ctest",
    "dart",
    "deno",
    "direnv",
    "docker",
    "docker-compose",
    "dotnet",
    "fab",
    "flutter",
    "gem",
    "gitk",
    "gmake",
    "go",
    "gradle",
    "gradlew",
    "grunt",
    "gulp",
    "hg",
    "invoke",
    "jj",
    "just",
    "lein",
    "make",
    "meson",
    "mix",
    "msbuild",
    "mvn",
    "mvnw",
    "ninja",
    "nox",
    "npm",
    "npx",
    "packer",
    "pdm",
    "pip",
    "pipx",
    "pnpm",
    "pnpx",
    "podman",
    "podman-compose",
    "poetry",
    "pre-commit",
    "py.test",
    "pytest",
    "rake",
    "rebar3",
    "rustup",
    "sbt",
    "scons",
    "stack",
    "svn",
    "swift",
    "task",
    "terraform",
    "tig",
    "tofu",
    "tox",
    "uv",
    "uvx",
    "vagrant",
    "waf",
    "yarn",
    "yarnpkg",
];

/// The parts of git that run nothing of a repository's: what `git help git` (SECURITY) says of serving
/// fetches from one that is not trusted.
const GIT_SERVES: &str = "upload-pack";

/// Whether a simple line runs a program that its arguments, or files in a folder, name, as far as that is
/// known.
pub(super) fn runs_another(words: &[String]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let name = program.rsplit('/').next().unwrap_or(program);
    let name = match name.split_once(MACHINES) {
        Some((_, rest)) => rest.split_once('-').map_or(name, |(_, rest)| rest),
        None => name,
    };
    // Versions stand behind some names: `pip3.11`, `make-4.3`, `gcc-12`.
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    let among = |programs: &[&str]| programs.contains(&name) || programs.contains(&bare);
    if among(ALWAYS) || ALWAYS_BEGINNING.iter().any(|start| name.starts_with(start)) {
        // By itself it names none; what it reads is not looked into.
        return !arguments.is_empty();
    }
    if among(BY_FILES) {
        return true;
    }
    match name {
        "git" => git(arguments),
        _ if name.starts_with("git-") => {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            name.strip_prefix("git-") != Some(GIT_SERVES) || !serves(&arguments)
        }
        "openssl" => openssl(arguments),
        "sed" => sed(arguments),
        // In its server's part `-e` is what the client is capable of.
        "rsync" if arguments.first().is_some_and(|word| word == "--server") => false,
        "tar" => {
            // `host:/file` is an archive on another machine, by rsh.
            arguments.first().is_some_and(|word| old_style(word))
                || arguments.iter().any(|word| word.contains(':'))
                || by_option(name, arguments)
        }
        _ => by_option(name, arguments),
    }
}

fn by_option(name: &str, arguments: &[String]) -> bool {
    let Some((_, long, short, whole)) = BY_OPTION.iter().find(|(of, ..)| *of == name) else {
        return false;
    };
    arguments
        .iter()
        .any(|word| whole.contains(&word.as_str()) || is_long(word, long) || is_short(word, short))
}

/// Whether a word is one of these long options, or could be one that is abbreviated.
fn is_long(word: &str, options: &[&str]) -> bool {
    let Some(written) = word.strip_prefix("--") else { return false };
    let name = written.split('=').next().unwrap_or(written);
    !name.is_empty() && options.iter().any(|option| option.starts_with(name))
}

/// Whether a word is a cluster of short options with one of these letters in it.
fn is_short(word: &str, letters: &str) -> bool {
    let cluster = word.strip_prefix('-').filter(|cluster| !cluster.starts_with('-'));
    cluster.is_some_and(|cluster| cluster.contains(|letter| letters.contains(letter)))
}

/// The first argument of tar without a dash: a cluster of options.
fn old_style(word: &str) -> bool {
    !word.starts_with('-') && word.contains(['I', 'F'])
}

/// Whether git, with these arguments, could run what a repository says. Its every other command reads the
/// settings of the repository that it finds, which name programs.
fn git(arguments: &[String]) -> bool {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["version" | "--version"] => false,
        [GIT_SERVES, ref arguments @ ..] => !serves(arguments),
        _ => true,
    }
}

/// Whether these are the arguments of a part of git that serves fetches.
fn serves(arguments: &[&str]) -> bool {
    let (folder, options) = match arguments.split_last() {
        Some((folder, options)) => (*folder, options),
        None => return true,
    };
    let plain = |option: &&str| matches!(*option, "--strict" | "--no-strict" | "--stateless-rpc");
    !folder.starts_with('-') && options.iter().all(plain)
}

/// Whether openssl is told to load a library, or settings that may name one.
fn openssl(arguments: &[String]) -> bool {
    arguments.iter().any(|word| {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        matches!(name, "config" | "engine" | "engine_impl" | "provider" | "provider-path")
    })
}

/// Scripts of sed may run commands and write files; those that only choose lines do not.
fn sed(arguments: &[String]) -> bool {
    let chooses = |script: &str| script.chars().all(|c| c.is_ascii_digit() || ",pqd=".contains(c));
    let quiet = |word: &&String| matches!(word.as_str(), "-n" | "--quiet" | "--silent");
    let mut rest = arguments.iter().skip_while(quiet);
    !rest.next().is_some_and(|script| chooses(script)) || rest.any(|word| word.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;

    fn runs(line: &str) -> bool {
        runs_another(&words(line).unwrap())
    }

    #[test]
    fn lines_that_run_what_their_arguments_name_are_known() {
        for line in [
            "/usr/bin/rsync -e /tmp/x a:b c",
            "rsync -ave /tmp/x a:b c",
            "rsync --rsh=/tmp/x a:b c",
            "rsync --rsync-path=/tmp/x a:b c",
            "rsync a:b c -- --server --rsh=/tmp/x",
            "tar -xf a.tar --to-command=/tmp/x",
            "tar -xf a.tar --to-c /tmp/x",
            "tar cf /dev/null x --checkpoint=1 --checkpoint-action=exec=/tmp/x",
            "tar -I /tmp/x -xf a.tar",
            "tar xIf /tmp/x a.tar",
            "find /srv -exec /tmp/x",
            "find /srv -name a -okdir /tmp/x",
            "git -c core.sshCommand=/tmp/x fetch",
            "git --config-env=core.sshCommand=X fetch",
            "git clone --upload-pack=/tmp/x a b",
            "git clone -u /tmp/x a b",
            "git fetch 'ext::/tmp/x'",
            "git config core.pager /tmp/x",
            "git submodule foreach /tmp/x",
            "env FOO=1 /tmp/x",
            "/usr/bin/env -S /tmp/x",
            "xargs -a list /tmp/x",
            "nice -n 5 /tmp/x",
            "timeout 5 /tmp/x",
            "sh -c /tmp/x",
            "/bin/bash /tmp/x",
            "python3.11 /tmp/x",
            "/lib64/ld-linux-x86-64.so.2 /tmp/x",
            "sudo /tmp/x",
            "busybox sh",
            "scp -S /tmp/x a b:c",
            "scp -o ProxyCommand=/tmp/x a b:c",
            "/usr/bin/git -C /srv/t/in/r status",
            "git status",
            "git",
            "git log --oneline -5",
            "git -C /srv/repo pull",
            "git-receive-pack /srv/x.git",
            "git receive-pack /srv/x.git",
            "git-upload-archive /srv/x.git",
            "git upload-pack --exec=/tmp/x /srv/x.git",
            "/usr/lib/git-core/git-status",
            "/usr/bin/make",
            "make-4.3 -C /srv/in",
            "npm run build",
            "cargo build",
            "hg -R /srv/in status",
            "pip3.11 install /srv/in",
            "docker compose up",
            "mysql -e 'system id'",
            "systemctl link /srv/in/x.service",
            "apt-get -o APT::Update::Pre-Invoke::=/tmp/x update",
            "sed -n 1e/tmp/x a",
            "sed -i 1d a",
            "sort --compress-prog=/tmp/x a",
            "split --filter=/tmp/x a",
            "tcpdump -i lo -z /tmp/x",
            "/usr/bin/sg root /tmp/x",
            "linux64 /tmp/x",
            "x86_64 /tmp/x",
            "perf stat /tmp/x",
            "gcc-12 -wrapper /tmp/x a.c",
            "/usr/bin/x86_64-linux-gnu-gcc-12 -wrapper /tmp/x a.c",
            "aarch64-linux-gnu-cpp -fplugin=/tmp/x.so a.c",
            "c99-gcc -wrapper /tmp/x a.c",
            "openssl dgst -engine /tmp/x.so a",
            "openssl engine /tmp/x.so",
            "openssl list -provider-path=/tmp -provider x",
            "nginx -c /tmp/x",
            "rpm --eval x",
            "x86_64-linux-gnu-ld.bfd --plugin /tmp/x.so a.o",
            "nm --plug=/tmp/x.so a.o",
            "pdb3 /tmp/x.py",
            "pydoc3.11 /tmp/x.py",
            "vim.tiny -c x",
            "sqlite3 a.db '.shell x'",
            "tar -cf host:/tmp/x a",
            "apt-get changelog bash",
        ] {
            assert!(runs(line), "{line}");
        }
    }

    #[test]
    fn what_only_reads_its_arguments_stays_simple() {
        for line in [
            "/usr/bin/id -u",
            "/bin/ls -la /var/log",
            "rsync -av /srv/a /srv/b",
            "rsync --server -logDtpre.iLsfxCIvu . /srv",
            "rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv",
            "tar -xzf a.tar -C /srv",
            "tar --extract --file=a.tar --totals",
            "find /srv -name a.log -mtime 1",
            "git --version",
            "openssl x509 -in /etc/ssl/cert.pem -noout -enddate",
            "/usr/sbin/nginx -t",
            "rpm -qa",
            "nm a.o",
            "git upload-pack /srv/x.git",
            "git-upload-pack --strict /srv/x.git",
            "apt-get update",
            "makewhatis",
            "sed -n 1,5p /var/log/app.log",
            "sort -u a",
            "scp -t /srv/in",
            "scp -p -f /etc/hostname",
            "systemctl restart app",
            "timedatectl",
            "/bin/sh",
        ] {
            assert!(!runs(line), "{line}");
        }
    }
}
