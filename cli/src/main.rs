mod demo;
mod dirs;
mod failure;
mod files;
mod identity;
mod node;
mod output;
fn main() {
    let args: Vec<_> = std::env::args().collect();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match &args[1][..] {
        "up" => {
            let dir = args.iter().position(|a| a == "--dir").map(|i| &args[i + 1]).unwrap();
            let o = node::Options {
                dirs: dirs::Dirs::below(std::path::Path::new(dir)),
                pool: Some(256 << 20),
                allow_swap: false,
                json: args.contains(&"--json".into()),
            };
            if let Err(e) = node::run(o) {
                eprintln!("{e:?}");
                std::process::exit(1)
            }
        }
        "demo" => {
            let r = demo::demo(false);
            eprintln!("{r:?}");
        }
        "demo-client" => {
            let r = <demo::Role as clap::ValueEnum>::from_str(&args[2], true).unwrap();
            if let Err(e) = demo::play(r) {
                eprintln!("{e}");
            }
        }
        _ => {}
    }
}
