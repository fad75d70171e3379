package devnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// maxCommand bounds a command; grants are the only long ones.
const maxCommand = 1 << 20

// commands lists what Do carries out, with the arguments besides "op" and the results:
//
//	add_key         identity (a login or a tag), login, display_name, tags,
//	                reusable (true), ephemeral, expires_in_s, needs_approval,
//	                shared                        {"key": "tskey-auth-…"}
//	refuse_key      key                           {}
//	set_grants      grants [{src, dst, ip, app}]  {}
//	nodes                                         {"nodes": [NodeInfo]}
//	expire_node     node (stable id, name, addr)  {}
//	remove_node     node                          {}
//	forget_node     node                          {}
//	approve_node    node                          {}
//	share_node      node, shared                  {}
//	rename_node     node, name                    {}
//	logins                                        {"urls": [login URL]}
//	complete_login  url, identity, login,
//	                display_name, tags            {}
//	pause_control, resume_control                 {}
//	pause_derp, resume_derp                       {}
//	drop_control, drop_derp                       {"closed": connections}
//	info                                          Info
//
// Each decodes its arguments strictly: a misspelt field must not pass as its
// default.
var commands = map[string]func(d *Devnet, args []byte) (any, error){
	"add_key":        command((*Devnet).addKey),
	"refuse_key":     command((*Devnet).refuseKey),
	"set_grants":     command((*Devnet).setGrants),
	"nodes":          command((*Devnet).listNodes),
	"expire_node":    command((*Devnet).expireNode),
	"remove_node":    command((*Devnet).removeNode),
	"forget_node":    command((*Devnet).forgetNode),
	"approve_node":   command((*Devnet).approveNode),
	"share_node":     command((*Devnet).shareNode),
	"rename_node":    command((*Devnet).renameNode),
	"logins":         command((*Devnet).listLogins),
	"complete_login": command((*Devnet).completeLogin),
	"pause_control":  command((*Devnet).pauseControl),
	"resume_control": command((*Devnet).resumeControl),
	"drop_control":   command((*Devnet).dropControl),
	"pause_derp":     command((*Devnet).pauseDERP),
	"resume_derp":    command((*Devnet).resumeDERP),
	"drop_derp":      command((*Devnet).dropDERP),
	"info":           command((*Devnet).info),
}

// Do carries out one command, a JSON object whose "op" names it, and returns its
// JSON result. Every error is an *Error.
func (d *Devnet) Do(cmd []byte) (result []byte, err error) {
	op := "do"
	defer func() {
		if p := recover(); p != nil {
			d.logf("devnet: panic in command %s: %v\n%s", op, p, debug.Stack())
			result, err = nil, fail(CodeInternal, op, "internal error")
		}
	}()
	if !d.inflight.begin() {
		return nil, fail(CodeClosed, op, "the devnet was stopped")
	}
	defer d.inflight.end()
	var head struct {
		Op string `json:"op"`
	}
	if len(cmd) > maxCommand {
		return nil, fail(CodeBadCommand, op, "a command must have at most %d bytes", maxCommand)
	}
	if err := json.Unmarshal(cmd, &head); err != nil {
		return nil, fail(CodeBadCommand, op, "a command must be a JSON object with an op: %w", err)
	}
	run, ok := commands[head.Op]
	if !ok {
		return nil, fail(CodeBadCommand, op, "unknown op %q: allowed are %s", head.Op,
			strings.Join(slices.Sorted(maps.Keys(commands)), ", "))
	}
	op = head.Op
	v, err := run(d, cmd)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = fail(CodeBadCommand, op, "%w", err)
		}
		e.Op = op
		return nil, e
	}
	return json.Marshal(v)
}

// command returns an entry of commands for a method and its arguments' type.
func command[A any](run func(*Devnet, A) (any, error)) func(*Devnet, []byte) (any, error) {
	return func(d *Devnet, raw []byte) (any, error) {
		var args A
		if err := decodeStrictly(raw, &args); err != nil {
			return nil, err
		}
		return run(d, args)
	}
}

func decodeStrictly(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		// Only the argument's name: how the path below it is written differs between versions of Go.
		argument, _, _ := strings.Cut(wrongType.Field, ".")
		return fmt.Errorf("%s: a JSON %s is not allowed here", argument, wrongType.Value)
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("trailing data after the command")
	}
	return nil
}

// commit sends a change to the nodes and writes it to the disk.
func (d *Devnet) commit() error {
	d.wakeStreams()
	return d.save()
}

// done is the result of a command without a result.
type done struct{}

// opOnly are the arguments of a command that takes none.
type opOnly struct {
	Op string `json:"op"`
}

type addKeyArgs struct {
	Op            string   `json:"op"`
	Identity      string   `json:"identity"`
	Login         string   `json:"login"`
	DisplayName   string   `json:"display_name"`
	Tags          []string `json:"tags"`
	Reusable      *bool    `json:"reusable"` // default true
	Ephemeral     bool     `json:"ephemeral"`
	ExpiresInS    *float64 `json:"expires_in_s"` // default: never
	NeedsApproval bool     `json:"needs_approval"`
	Shared        bool     `json:"shared"`
}

const maxAuthKeys = 100_000

// addKey issues an auth key: a node that presents it belongs to the identity.
func (d *Devnet) addKey(a addKeyArgs) (any, error) {
	id, err := newIdentity(a.Identity, a.Login, a.DisplayName, a.Tags)
	if err != nil {
		return nil, err
	}
	k := &authKey{
		Identity:      id,
		Reusable:      a.Reusable == nil || *a.Reusable,
		Ephemeral:     a.Ephemeral,
		NeedsApproval: a.NeedsApproval,
		Shared:        a.Shared,
	}
	if a.ExpiresInS != nil {
		if *a.ExpiresInS < 0 || *a.ExpiresInS > 1e9 {
			return nil, errors.New("expires_in_s: allowed are 0 to 1e9 seconds")
		}
		k.Expires = d.now().Add(time.Duration(*a.ExpiresInS * float64(time.Second)))
	}
	secret := newAuthKeySecret()
	d.mu.Lock()
	full := len(d.reg.keys) >= maxAuthKeys
	if !full {
		d.reg.keys[hashAuthKey(secret)] = k
		d.reg.ensureUser(id) // its display name may be a new one
	}
	d.mu.Unlock()
	if full {
		return nil, errors.New("this devnet has issued as many auth keys as it can hold")
	}
	return map[string]string{"key": secret}, d.commit()
}

type keyArgs struct {
	Op  string `json:"op"`
	Key string `json:"key"`
}

// refuseKey revokes an auth key. Nodes that joined with it stay.
func (d *Devnet) refuseKey(a keyArgs) (any, error) {
	d.mu.Lock()
	k := d.reg.keys[hashAuthKey(a.Key)]
	if k != nil {
		k.Refused = true
	}
	d.mu.Unlock()
	if k == nil {
		return nil, fail(CodeUnknownKey, "", "no such auth key: add_key issues them")
	}
	return done{}, d.save()
}

type grantsArgs struct {
	Op     string  `json:"op"`
	Grants []grant `json:"grants"`
}

// setGrants replaces the whole policy. Without grants no node reaches another.
func (d *Devnet) setGrants(a grantsArgs) (any, error) {
	if a.Grants == nil {
		return nil, errors.New("grants is missing: a list, [] to allow nothing")
	}
	if err := checkGrants(a.Grants); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.reg.grants = a.Grants
	d.mu.Unlock()
	return done{}, d.commit()
}

// NodeInfo describes one node, for the command nodes.
type NodeInfo struct {
	ID          int64    `json:"id"`
	StableID    string   `json:"stable_id"`
	Name        string   `json:"name"` // full, without the final dot
	Addresses   []string `json:"addresses"`
	UserID      int64    `json:"user_id"` // 0 for tagged nodes
	Login       string   `json:"login"`   // "" for tagged nodes
	DisplayName string   `json:"display_name"`
	Tags        []string `json:"tags"`
	Online      bool     `json:"online"`
	Expired     bool     `json:"expired"`
	Shared      bool     `json:"shared"`
	Approved    bool     `json:"approved"`
	Ephemeral   bool     `json:"ephemeral"`
}

func (d *Devnet) listNodes(opOnly) (any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	infos := []NodeInfo{}
	for _, n := range d.reg.nodes {
		if n.Removed {
			continue
		}
		info := NodeInfo{
			ID:        int64(n.ID),
			StableID:  string(n.StableID),
			Name:      strings.TrimSuffix(d.reg.fqdn(n), "."),
			Addresses: []string{n.V4.String(), n.V6.String()},
			Tags:      []string{},
			Online:    n.stream != nil,
			Expired:   n.expired(now),
			Shared:    n.Shared,
			Approved:  n.Approved,
			Ephemeral: n.Ephemeral,
		}
		if n.Owner.tagged() {
			info.Tags = n.Owner.Tags
		} else {
			u := d.reg.users[n.userID()]
			info.UserID, info.Login, info.DisplayName = int64(u.ID), u.LoginName, u.DisplayName
		}
		infos = append(infos, info)
	}
	return map[string][]NodeInfo{"nodes": infos}, nil
}

type nodeArgs struct {
	Op   string `json:"op"`
	Node string `json:"node"` // stable id, name or address
}

// changeNode carries out one change of one node.
func (d *Devnet) changeNode(selector string, change func(*node)) (any, error) {
	d.mu.Lock()
	n := d.reg.find(selector)
	if n != nil {
		change(n)
	}
	d.mu.Unlock()
	if n == nil {
		return nil, fail(CodeUnknownNode, "", "no node %q: allowed are a stable id, a name or an address of nodes", selector)
	}
	return done{}, d.commit()
}

// expireNode ends the node's key now. It must log in again.
func (d *Devnet) expireNode(a nodeArgs) (any, error) {
	return d.changeNode(a.Node, func(n *node) { n.expire(d.now()) })
}

// removeNode removes the node from the tailnet and from its peers.
func (d *Devnet) removeNode(a nodeArgs) (any, error) {
	return d.changeNode(a.Node, func(n *node) { d.reg.remove(n, d.now()) })
}

// forgetNode deletes the node, and answers it with 404 from then on.
func (d *Devnet) forgetNode(a nodeArgs) (any, error) {
	return d.changeNode(a.Node, d.reg.forget)
}

// approveNode admits a node whose key needs approval.
func (d *Devnet) approveNode(a nodeArgs) (any, error) {
	return d.changeNode(a.Node, func(n *node) { n.Approved = true })
}

type shareArgs struct {
	Op     string `json:"op"`
	Node   string `json:"node"`
	Shared *bool  `json:"shared"`
}

// shareNode marks the node, for its peers, as shared in from another tailnet.
func (d *Devnet) shareNode(a shareArgs) (any, error) {
	if a.Shared == nil {
		return nil, errors.New("shared is missing: true or false")
	}
	return d.changeNode(a.Node, func(n *node) { n.Shared = *a.Shared })
}

type renameArgs struct {
	Op   string `json:"op"`
	Node string `json:"node"`
	Name string `json:"name"`
}

// renameNode gives the node a name other than its hostname, as an administrator can.
func (d *Devnet) renameNode(a renameArgs) (any, error) {
	if labelOf(a.Name) != a.Name {
		return nil, fmt.Errorf("name: %q is not a DNS label; use a-z, 0-9, and - inside", a.Name)
	}
	return d.changeNode(a.Node, func(n *node) { n.Name = d.reg.freeName(a.Name, n) })
}

// listLogins returns the URLs of nodes that wait for a login.
func (d *Devnet) listLogins(opOnly) (any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	urls := []string{}
	for id, p := range d.reg.logins {
		if !p.completed() {
			urls = append(urls, d.controlURL+loginPath+"/"+id)
		}
	}
	slices.Sort(urls)
	return map[string][]string{"urls": urls}, nil
}

type loginArgs struct {
	Op          string   `json:"op"`
	URL         string   `json:"url"`
	Identity    string   `json:"identity"`
	Login       string   `json:"login"`
	DisplayName string   `json:"display_name"`
	Tags        []string `json:"tags"`
}

// completeLogin acts as a person who opens the URL and logs in.
func (d *Devnet) completeLogin(a loginArgs) (any, error) {
	id, err := newIdentity(a.Identity, a.Login, a.DisplayName, a.Tags)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	p := d.reg.loginOf(a.URL)
	if p != nil && !p.completed() {
		p.complete(id)
	}
	d.mu.Unlock()
	if p == nil {
		return nil, fail(CodeUnknownLogin, "", "no node waits for this login URL: logins lists them")
	}
	return done{}, nil
}

// pauseControl simulates an outage of the control server: open connections become silent,
// the kernel queues new ones, and the port stays in use.
func (d *Devnet) pauseControl(opOnly) (any, error)  { d.controlGate.pause(); return done{}, nil }
func (d *Devnet) resumeControl(opOnly) (any, error) { d.controlGate.resume(); return done{}, nil }
func (d *Devnet) pauseDERP(opOnly) (any, error)     { d.derpGate.pause(); return done{}, nil }
func (d *Devnet) resumeDERP(opOnly) (any, error)    { d.derpGate.resume(); return done{}, nil }

// dropControl closes the open connections. After a pause, it makes nodes notice the outage
// at once.
func (d *Devnet) dropControl(opOnly) (any, error) {
	return map[string]int{"closed": d.controlGate.drop()}, nil
}

func (d *Devnet) dropDERP(opOnly) (any, error) {
	return map[string]int{"closed": d.derpGate.drop()}, nil
}

func (d *Devnet) info(opOnly) (any, error) { return d.Info(), nil }
