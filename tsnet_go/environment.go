package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
	"tailscale.com/envknob"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
)

// tsnetVariables are the variables that tsnet itself takes settings from. Go sees
// the environment of the process's start, so Python cannot take them away.
var tsnetVariables = []string{
	"TS_AUTHKEY", "TS_AUTH_KEY", "TS_CONTROL_URL", "TS_CLIENT_SECRET", "TS_CLIENT_ID", "TS_ID_TOKEN", "TS_AUDIENCE",
	"TSNET_FORCE_LOGIN",
}

// keepalives bound how long a connection lasts whose peer vanished without a word,
// such as a laptop that was shut: netstack's own two hours would fill a listener.
var keepalives = map[string]string{
	"TS_NETSTACK_KEEPALIVE_IDLE":     "2m",
	"TS_NETSTACK_KEEPALIVE_INTERVAL": "15s",
}

// prepareProcess sets what tailscale reads from the environment of the whole
// process, and tells what that switches off.
func prepareProcess(config NodeConfig) ([]string, error) {
	if config.IgnoreEnv {
		for _, name := range tsnetVariables {
			if err := os.Unsetenv(name); err != nil {
				return nil, err
			}
		}
	}
	for name, value := range keepalives {
		if os.Getenv(name) == "" {
			envknob.Setenv(name, value)
		}
	}
	if config.Loopback {
		return devnet.SetLoopbackKnobs(), nil
	}
	return []string{}, nil
}

// setLogsDir must come right before tsnet's Start, which looks for a place for
// logs, though it uploads none: without the variable it takes one under HOME, and
// panics where there is none. It holds for the process, and the directory that
// an earlier node set may be gone.
func setLogsDir(dir string) error { return os.Setenv("TS_LOGS_DIR", dir) }

// lockDir makes sure that one node at a time uses a state directory: two would be
// one machine in two places, and the tailnet would reach now one and now the
// other. The lock ends with the file or the process, whichever is first.
func lockDir(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, errorf(codeBadArgument, "node new", "the state directory: %v", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		file.Close()
		return nil, errorf(codeStateInUse, "node new", "another node uses the state directory %s", dir)
	}
	// Any other error is a file system without locks, where nothing can be said.
	return file, nil
}
