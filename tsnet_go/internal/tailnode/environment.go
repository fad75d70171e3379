package tailnode

import (
	"os"
	"strings"

	"tailscale.com/envknob"

	"github.com/tailbone/tailbone/tsnet_go/loopback"
)

// ownVariables are set by this program for the whole process; one of them is a
// safeguard of tests.
var ownVariables = map[string]bool{
	logsDirVariable:                 true,
	"TS_ASSUME_NETWORK_UP_FOR_TEST": true,
	"TS_DISABLE_PORTMAPPER":         true,
	"TS_NO_LOGS_NO_SUPPORT":         true,
	"TS_PANIC_IF_HIT_MAIN_CONTROL":  true,
}

const logsDirVariable = "TS_LOGS_DIR"

// keepalives bound how long a connection stays open whose peer vanished without closing
// it, such as a laptop that was shut. With netstack's default of two hours, such
// connections would fill a listener.
var keepalives = map[string]string{
	"TS_NETSTACK_KEEPALIVE_IDLE":     "2m",
	"TS_NETSTACK_KEEPALIVE_INTERVAL": "15s",
}

// prepareProcess sets what tailscale reads from the environment of the whole process.
// It returns what that disables.
func prepareProcess(config Config) ([]string, error) {
	if config.IgnoreEnv {
		if err := clearVariables(); err != nil {
			return nil, err
		}
	}
	for name, value := range keepalives {
		if os.Getenv(name) == "" {
			envknob.Setenv(name, value)
		}
	}
	if config.Loopback {
		return loopback.Prepare(), nil
	}
	return []string{}, nil
}

// clearVariables removes every variable that tsnet or tailscale reads settings from. Go
// sees the environment of the process's start, so Python cannot do this.
func clearVariables() error {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		isTailscales := strings.HasPrefix(name, "TS_") || strings.HasPrefix(name, "TSNET_")
		if !isTailscales || ownVariables[name] {
			continue
		}
		// envknob reads most of them once, when the library is loaded.
		envknob.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	return nil
}

// setLogsDir must be called right before tsnet's Start, which looks for a directory for
// logs although it uploads none: without the variable it takes one below HOME, and
// panics if there is none. The variable applies to the process, and the directory that
// an earlier node set may have been removed.
func setLogsDir(dir string) error { return os.Setenv(logsDirVariable, dir) }
