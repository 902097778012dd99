//! The flags of klog, which both programs have.

use clap::Args;

use super::{SWITCH, translation::Translation, values::boolean};

const INSTEAD: &str = "lines go to standard error, as CULVERT_LOG_LEVEL and CULVERT_LOG_FORMAT say";

/// From this verbosity on klog's users tell of each request.
const DEBUG: i32 = 4;

/// How Yurt-Tunnel logs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub(super) struct KlogFlags {
    /// Verbosity: 4 and more is culvert's `debug`, less its `info` [default: 0]
    #[arg(
        short = 'v',
        long = "v",
        value_name = "NUMBER",
        allow_hyphen_values = true
    )]
    v: Option<i32>,

    /// Ignored
    #[arg(long, value_name = "PATTERN=N,...", allow_hyphen_values = true)]
    vmodule: Option<String>,

    /// What happens in any case; `false` is ignored [default: true]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    logtostderr: Option<bool>,

    /// What happens in any case [default: false]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    alsologtostderr: Option<bool>,

    /// Ignored [default: 2]
    #[arg(long, value_name = "SEVERITY")]
    stderrthreshold: Option<String>,

    /// Ignored
    #[arg(long = "log_dir", value_name = "DIR")]
    log_dir: Option<String>,

    /// Ignored
    #[arg(long = "log_file", value_name = "FILE")]
    log_file: Option<String>,

    /// Ignored [default: 1800]
    #[arg(long = "log_file_max_size", value_name = "MEGABYTES")]
    log_file_max_size: Option<u64>,

    /// Ignored [default: :0]
    #[arg(long = "log_backtrace_at", value_name = "FILE:LINE")]
    log_backtrace_at: Option<String>,

    /// Ignored [default: false]
    #[arg(long = "add_dir_header", value_name = SWITCH, value_parser = boolean)]
    add_dir_header: Option<bool>,

    /// Ignored [default: false]
    #[arg(long = "one_output", value_name = SWITCH, value_parser = boolean)]
    one_output: Option<bool>,

    /// Ignored [default: false]
    #[arg(long = "skip_headers", value_name = SWITCH, value_parser = boolean)]
    skip_headers: Option<bool>,

    /// Ignored [default: false]
    #[arg(long = "skip_log_headers", value_name = SWITCH, value_parser = boolean)]
    skip_log_headers: Option<bool>,
}

impl KlogFlags {
    /// Standard error is where lines go here, too: flags that ask for that are not named.
    pub(super) fn translate(self, translation: &mut Translation) {
        let debug = self.v.is_some_and(|v| v >= DEBUG);
        translation.set_if("log-level", debug.then_some("debug"));
        let to_file = self.logtostderr.filter(|to_stderr| !to_stderr);
        let switches = [
            ("logtostderr", to_file),
            ("add_dir_header", self.add_dir_header),
            ("one_output", self.one_output),
            ("skip_headers", self.skip_headers),
            ("skip_log_headers", self.skip_log_headers),
        ];
        let size = self.log_file_max_size.map(|size| size.to_string());
        let texts = [
            ("vmodule", self.vmodule),
            ("stderrthreshold", self.stderrthreshold),
            ("log_dir", self.log_dir),
            ("log_file", self.log_file),
            ("log_file_max_size", size),
            ("log_backtrace_at", self.log_backtrace_at),
        ];
        let switches = switches.map(|(flag, given)| (flag, given.map(|given| given.to_string())));
        let given = switches.into_iter().chain(texts);
        let given = given.filter_map(|(flag, given)| Some(format!("--{flag}={}", given?)));
        let given: Vec<_> = given.collect();
        if !given.is_empty() {
            translation.ignore(given.join(", "), INSTEAD);
        }
    }
}
