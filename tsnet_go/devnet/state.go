package devnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// state is what a devnet keeps between runs, so that nodes that kept their own state
// return to the same tailnet.
type state struct {
	Version  int                   `json:"version"`
	Domain   string                `json:"domain"`
	NoiseKey key.MachinePrivate    `json:"noise_key"`
	DERPKey  key.NodePrivate       `json:"derp_key"`
	CertDER  []byte                `json:"derp_cert"`
	CertKey  []byte                `json:"derp_cert_key"`
	Ports    ports                 `json:"ports"`
	Users    []tailcfg.UserProfile `json:"users"`
	AuthKeys map[string]*authKey   `json:"auth_keys"` // by SHA-256
	Nodes    []*node               `json:"nodes"`
	Made     int                   `json:"made"`
	Grants   []grant               `json:"grants"`
}

type ports struct {
	Control int `json:"control"`
	DERP    int `json:"derp"`
	STUN    int `json:"stun"`
}

const (
	stateVersion = 1
	stateFile    = "devnet.json"
	lockFile     = "devnet.lock"
)

// lockState locks the state directory for this devnet, until the file is closed.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fail(CodeStateUnreadable, "start", "making the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fail(CodeStateUnreadable, "start", "opening the lock of the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fail(CodeStateInUse, "start", "another `tailbone dev` uses the state directory %s", dir)
	}
	return f, nil
}

// loadState returns the state of an earlier run, or an empty state.
func loadState(dir string) (*state, error) {
	if dir == "" {
		return &state{}, nil
	}
	path := filepath.Join(dir, stateFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{}, nil
	}
	if err != nil {
		return nil, fail(CodeStateUnreadable, "start", "reading the state: %w", err)
	}
	st, err := decodeState(data)
	if err != nil {
		return nil, fail(CodeStateUnreadable, "start", "%s is damaged (%w): remove it to start over", path, err)
	}
	return st, nil
}

func decodeState(data []byte) (*state, error) {
	st := new(state)
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", st.Version, stateVersion)
	}
	return st, st.check()
}

// check finds damage that would break the devnet later, far from its cause.
func (st *state) check() error {
	if st.NoiseKey.IsZero() || st.DERPKey.IsZero() {
		return errors.New("a key is missing")
	}
	for _, n := range st.Nodes {
		if n == nil || n.ID == 0 || n.StableID == "" || n.Key.IsZero() || !n.V4.Is4() || !n.V6.Is6() || n.Name == "" {
			return errors.New("a node is incomplete")
		}
	}
	for hash, k := range st.AuthKeys {
		if k == nil {
			return fmt.Errorf("auth key %.8s is empty", hash)
		}
	}
	return checkGrants(st.Grants)
}

// registry restores the tailnet of an earlier run; its nodes are offline until
// they connect.
func (st *state) registry(domain string) *registry {
	r := newRegistry(domain)
	for _, u := range st.Users {
		r.users[u.ID] = u
	}
	for hash, k := range st.AuthKeys {
		r.keys[hash] = k
	}
	r.nodes = st.Nodes
	r.made = st.Made
	if st.Grants != nil {
		r.grants = st.Grants
	}
	return r
}

// snapshotLocked encodes the current state. Devnet.mu must be held.
func (d *Devnet) snapshotLocked() ([]byte, error) {
	st := d.fixed // keys, certificate and ports
	st.Version = stateVersion
	st.Domain = d.reg.domain
	for _, u := range d.reg.users {
		st.Users = append(st.Users, u)
	}
	st.AuthKeys = d.reg.keys
	st.Nodes = d.reg.nodes
	st.Made = d.reg.made
	st.Grants = d.reg.grants
	return json.Marshal(&st)
}

// save writes the state; without a state directory it does nothing.
func (d *Devnet) save() error {
	if d.cfg.StateDir == "" {
		return nil
	}
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	data, err := d.snapshotLocked()
	d.mu.Unlock()
	if err == nil {
		err = writeAtomically(filepath.Join(d.cfg.StateDir, stateFile), data)
	}
	if err != nil {
		return fail(CodeStateNotSaved, "save", "writing the state: %w", err)
	}
	return nil
}

// saveSoon makes the saver write the state; many calls make one write.
func (d *Devnet) saveSoon() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// saveLoop writes the state after saveSoon. Stop writes what is still unsaved.
func (d *Devnet) saveLoop() {
	for {
		select {
		case <-d.stopping:
			return
		case <-d.dirty:
			if err := d.save(); err != nil {
				d.logf("devnet: %v", err)
			}
		}
	}
}

// writeAtomically leaves either the old or the new content after a crash.
func writeAtomically(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
