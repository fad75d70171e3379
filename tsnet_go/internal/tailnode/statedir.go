package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// checkState finds a state file that was damaged: what tsnet says of one is about
// something else, a migration that it tries first.
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
	return errorf(codeBadArgument, "up", "the node's state cannot be read (%s: %v): put a copy of it back, "+
		"or move it away, and the node joins anew", path, err)
}

// lockDir makes sure that one node at a time uses a state directory: two would be
// one machine in two places, and the tailnet would reach now one and now the
// other. The lock ends with the file or the process, whichever is first.
func lockDir(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, errorf(codeBadArgument, "node new", "the node's state directory: %v", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		file.Close()
		return nil, errorf(codeStateInUse, "node new", "another node uses the state directory %s", dir)
	}
	// Any other error is a file system without locks, where nothing can be said.
	return file, nil
}

const portFile = "udp-port"

// lastPort is the UDP port of the node's last run, 0 for any. tailscale takes
// another one where it is not free, so that whatever the file says is harmless.
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

// writePort keeps the port for lastPort; it writes only what has changed.
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
