package tailnode

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// checkState returns an error for a damaged state file. tsnet would report a failed
// migration instead, which it tries first.
func checkState(dir string) error {
	path := filepath.Join(dir, "tailscaled.state")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		var state map[string][]byte
		if err = json.Unmarshal(data, &state); err == nil {
			return nil
		}
	}
	return tberr.Errorf(tberr.BadArgument, "up", "the node's state cannot be read (%s: %v): restore the file from a backup, "+
		"or move it away and the node joins as a new one", path, err)
}

// lockDir makes sure that only one node uses a state directory. Two nodes would be one
// machine in two places, and the tailnet would reach now one and now the other. The
// lock ends when the file is closed or the process ends.
func lockDir(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, tberr.Errorf(tberr.BadArgument, "node new", "the node's state directory: %v", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		file.Close()
		return nil, tberr.Errorf(tberr.StateInUse, "node new", "another node uses the state directory %s", dir)
	}
	// Any other error means a file system without locks, where nothing can be checked.
	return file, nil
}

const portFile = "udp-port"

// lastPort returns the UDP port of the node's last run, or 0 for any. tailscale takes
// another port if it is in use, so a wrong number does no harm.
func lastPort(dir string) uint16 {
	text, err := os.ReadFile(filepath.Join(dir, portFile))
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// writePort records the port for lastPort, if it has changed.
func writePort(dir string, port uint16) error {
	if port == 0 || port == lastPort(dir) {
		return nil
	}
	path := filepath.Join(dir, portFile)
	if err := os.WriteFile(path+".new", []byte(strconv.Itoa(int(port))+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
