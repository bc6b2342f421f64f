//! One pass that marks where words and prefixes stand that matter.

use crate::kind::Kind;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// How far before a value a word still says what the value is, in bytes.
const CONTEXT_BYTES: usize = 48;

/// What a mark is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The prefix of a token's shape.
    Token(Kind),
    /// A word after which a credential is written.
    Keyword,
    /// A word that says what the number behind it is.
    Context(Kind),
    /// A word after which four numbers with dots are a version.
    Version,
    /// `://`.
    Url,
    /// The last line of something in PEM.
    PemEnd,
}

const TOKENS: &[(Kind, &[&str])] = &[
    (Kind::PrivateKey, &["-----begin "]),
    (Kind::AwsKey, &["akia", "asia"]),
    (Kind::GithubToken, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"]),
    (Kind::GitlabToken, &["glpat-", "gldt-", "glrt-", "glptt-", "glcbt-"]),
    (
        Kind::SlackToken,
        &[
            "xoxb-",
            "xoxp-",
            "xoxa-",
            "xoxr-",
            "xoxs-",
            "xoxe.",
            "xoxe-",
            "xapp-",
            "hooks.slack.com/services/",
        ],
    ),
    (Kind::StripeKey, &["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"]),
    (Kind::AnthropicKey, &["sk-ant-"]),
    (Kind::OpenaiKey, &["sk-"]),
    (Kind::GoogleKey, &["aiza"]),
    (Kind::NpmToken, &["npm_"]),
    (Kind::PypiToken, &["pypi-"]),
    (
        Kind::OtherToken,
        &[
            "sg.",
            "dop_v1_",
            "doo_v1_",
            "hf_",
            "dapi",
            "shpat_",
            "shpss_",
            "hvs.",
            "lin_api_",
            "age-secret-key-1",
            "dckr_pat_",
            "ntn_",
            "key-",
            "tfp_",
            "rubygems_",
            "pul-",
            "sbp_",
            "gsk_",
            "xai-",
            "r8_",
        ],
    ),
    (Kind::Jwt, &["eyj"]),
];

const KEYWORDS: &[&str] = &[
    "password",
    "passwort",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "api key",
    "access_key",
    "accesskey",
    "access-key",
    "private_key",
    "auth_key",
    "account_key",
    "accountkey",
    "authorization",
    "bearer",
    "credential",
    "contraseña",
    "contrasena",
    "mot de passe",
    "senha",
    "parola",
    "hasło",
    "haslo",
    "wachtwoord",
    "lösenord",
    "пароль",
    "Пароль",
    "ПАРОЛЬ",
    "密码",
    "密碼",
    "パスワード",
    "şifre",
    "पासवर्ड",
    "كلمة المرور",
    "_pass",
    "pass=",
    "pass:",
    "signing_key",
    "encryption_key",
    "_key",
];

const CONTEXTS: &[(Kind, &[&str])] = &[
    (
        Kind::Phone,
        &[
            "phone",
            "tel",
            "mobil",
            "cell",
            "handy",
            "fax",
            "whatsapp",
            "signal",
            "fono",
            "móvil",
            "movil",
            "call ",
            "rufnummer",
            "sms",
            "电话",
            "手机",
            "電話",
            "携帯",
            "тел",
            "моб",
            "Тел",
            "Моб",
            "هاتف",
            "جوال",
            "फोन",
            "फ़ोन",
            "मोबाइल",
            "numer",
            "gsm",
            "puhelin",
            "komórk",
            "bel ",
        ],
    ),
    (Kind::UkNhs, &["nhs"]),
    (Kind::NlBsn, &["bsn", "burgerservice", "sofinummer"]),
    (Kind::UsSsn, &["ssn", "social security", "social_security"]),
    (Kind::InAadhaar, &["aadhaar", "aadhar", "uidai", "आधार"]),
    (
        Kind::Card,
        &[
            "card",
            "karte",
            "carte",
            "tarjeta",
            "carta",
            "cartão",
            "kaart",
            "kort",
            "visa",
            "kart",
            "карт",
            "カード",
            "卡",
        ],
    ),
    (Kind::PlPesel, &["pesel"]),
    (Kind::DeTaxId, &["steuer", "tax id", "tax_id", "tin", "idnr"]),
    (Kind::BrCpf, &["cpf"]),
    (Kind::FrNir, &["nir", "sécurité sociale", "securite sociale", "nss", "insee"]),
    (Kind::SePersonnummer, &["personn", "pnr"]),
    (Kind::FiHetu, &["hetu", "henkil"]),
    (Kind::EsDni, &["dni", "nie", "nif"]),
    (Kind::CnResidentId, &["身份证", "居民"]),
];

const VERSIONS: &[&str] = &[
    "version",
    "release",
    "firmware",
    "build",
    "v.",
    "ver",
    "versión",
    "versão",
    "revision",
    "chrome/",
    "safari/",
    "assembly",
    "upgrade",
    "バージョン",
    "版本",
    "версия",
    "إصدار",
];

/// The words and prefixes, compiled once.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    search: AhoCorasick,
    marks: Vec<Mark>,
}

/// The marks of one text, in order.
#[derive(Debug)]
pub(crate) struct Marked {
    pub(crate) all: Vec<(Mark, usize, usize)>,
}

/// Where words stand that say what a number behind them is.
#[derive(Debug)]
pub(crate) struct Context {
    ends: Vec<(Option<Kind>, usize)>,
    /// Offsets of `@` that are part of a URL's credentials.
    pub(crate) not_email: Vec<usize>,
}

impl Marks {
    pub(crate) fn new() -> Self {
        let tokens =
            TOKENS.iter().flat_map(|(k, words)| words.iter().map(|w| (*w, Mark::Token(*k))));
        let contexts =
            CONTEXTS.iter().flat_map(|(k, words)| words.iter().map(|w| (*w, Mark::Context(*k))));
        let keywords = KEYWORDS.iter().map(|w| (*w, Mark::Keyword));
        let versions = VERSIONS.iter().map(|w| (*w, Mark::Version));
        let all = tokens.chain(contexts).chain(keywords).chain(versions);
        let (words, marks): (Vec<_>, Vec<_>) =
            all.chain([("://", Mark::Url), ("-----end ", Mark::PemEnd)]).unzip();
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .build(words)
            .expect("the lists above are small");
        Self { search, marks }
    }

    pub(crate) fn read(&self, text: &[u8]) -> Marked {
        let found = self.search.find_iter(text);
        let mark =
            |m: aho_corasick::Match| (self.marks[m.pattern().as_usize()], m.start(), m.end());
        Marked { all: found.map(mark).collect() }
    }
}

impl Marked {
    pub(crate) fn context(&self) -> Context {
        let ends = self.all.iter().filter_map(|(mark, _, end)| match mark {
            Mark::Context(kind) => Some((Some(*kind), *end)),
            Mark::Version => Some((None, *end)),
            _ => None,
        });
        Context { ends: ends.collect(), not_email: Vec::new() }
    }
}

impl Context {
    /// Whether a word shortly before says that here is one of this kind.
    pub(crate) fn says(&self, kind: Kind, at: usize) -> bool {
        self.has(Some(kind), at, CONTEXT_BYTES)
    }

    /// Whether a word right before says that here is a version.
    pub(crate) fn says_version(&self, at: usize) -> bool {
        self.has(None, at, 16)
    }

    /// The kind that the nearest word before speaks of.
    pub(crate) fn nearest(&self, at: usize) -> Option<Kind> {
        let after = self.ends.partition_point(|(_, end)| *end <= at);
        let near = self.ends[..after].last().filter(|(_, end)| end + CONTEXT_BYTES >= at);
        near.and_then(|(kind, _)| *kind)
    }

    fn has(&self, kind: Option<Kind>, at: usize, bytes: usize) -> bool {
        let after = self.ends.partition_point(|(_, end)| *end <= at);
        let near = self.ends[..after].iter().rev().take_while(|(_, end)| end + bytes >= at);
        near.into_iter().any(|(known, _)| *known == kind)
    }
}
