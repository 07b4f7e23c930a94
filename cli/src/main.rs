mod bench;
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
                pool: args.iter().position(|a| a == "--pool").map(|i| args[i + 1].parse().unwrap()),
                allow_swap: false,
                json: args.contains(&"--json".into()),
            };
            if let Err(e) = node::run(o) {
                eprintln!("{e:?}");
                std::process::exit(1)
            }
        }
        "bench" => {
            #[derive(clap::Parser)]
            struct Cli {
                #[arg(long, global = true)]
                json: bool,
                #[command(flatten)]
                bench: bench::Args,
            }
            let cli = <Cli as clap::Parser>::parse_from(&args[1..]);
            match bench::run(&cli.bench, cli.json) {
                Ok(ok) => std::process::exit(i32::from(!ok)),
                Err(e) => {
                    eprintln!("{e}");
                    std::process::exit(1)
                }
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
