# Where setup.sh puts the peers and run.sh looks for them; sourced by both.
peers_dir=${XDG_CACHE_HOME:-$HOME/.cache}/nearfield-peers
