//! The binary `astral`: everything is in the library's [`astral::cli`].

fn main() -> std::process::ExitCode {
    astral::cli::main()
}
