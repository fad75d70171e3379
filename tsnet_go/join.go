package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"tailscale.com/ipn"
)

// defaultControl answers for a node that names no control server, as in tsnet.
const defaultControl = "https://controlplane.tailscale.com"

// up joins the tailnet and returns when the node is running. tsnet's own Up
// waits for ever on a login that cannot happen; this one knows why it waits.
func (n *Node) up(timeout time.Duration) (*Status, error) {
	ctx, cancel := context.WithTimeout(n.life, timeout)
	defer cancel()
	n.mu.Lock()
	if n.closing {
		n.mu.Unlock()
		return nil, errorf(codeClosed, "up", "the node is closed")
	}
	if n.upCancel != nil {
		n.mu.Unlock()
		return nil, errorf(codeBadArgument, "up", "the node is joining already")
	}
	n.upCancel = cancel
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.upCancel = nil
		n.mu.Unlock()
	}()

	started := make(chan error, 1)
	go func() { started <- n.start() }()
	select {
	case err := <-started:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, n.joinEnded(ctx, &join{}, timeout)
	}

	j := &join{node: n}
	go j.watchControl(ctx)
	if err := j.wait(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, n.joinEnded(ctx, j, timeout)
		}
		return nil, err
	}
	// Now that the node runs, tsnet's Up returns at once; it clears what an
	// earlier process may have left in the serve configuration.
	if _, err := n.srv.Up(ctx); err != nil {
		return nil, errorf(codeInternal, "up", "%v", err)
	}
	return n.status()
}

// cancel ends a join that is under way; without one it does nothing.
func (n *Node) cancel() {
	n.mu.Lock()
	cancel := n.upCancel
	n.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// join is what is known about one attempt to join.
type join struct {
	node    *Node
	state   ipn.State
	authURL string
}

// wait follows the backend until it runs or cannot run.
func (j *join) wait(ctx context.Context) error {
	client, err := j.node.srv.LocalClient()
	if err != nil {
		return errorf(codeInternal, "up", "%v", err)
	}
	watcher, err := client.WatchIPNBus(ctx, ipn.NotifyInitialState)
	if err != nil {
		return errorf(codeInternal, "up", "%v", err)
	}
	defer watcher.Close()
	for {
		notify, err := watcher.Next()
		if err != nil {
			return errorf(codeInternal, "up", "the backend's notifications ended: %v", err)
		}
		if notify.ErrMessage != nil {
			return errorf(codeLoginRefused, "up", "the control server refused this node: %s", *notify.ErrMessage)
		}
		if url := notify.BrowseToURL; url != nil && *url != "" && *url != j.authURL {
			j.authURL = *url
			j.node.events.send(event{Type: "auth_url", URL: *url})
		}
		if notify.State == nil {
			continue
		}
		j.state = *notify.State
		if j.state == ipn.Running {
			return nil
		}
	}
}

// joinEnded tells why a join ended early: by a close, a cancel, or its deadline.
func (n *Node) joinEnded(ctx context.Context, j *join, timeout time.Duration) error {
	switch {
	case n.life.Err() != nil:
		return errorf(codeClosed, "up", "the node was closed while it joined")
	case errors.Is(ctx.Err(), context.Canceled):
		return errorf(codeCancelled, "up", "joining was cancelled")
	case j.state == ipn.NeedsMachineAuth:
		return errorf(codeApproval, "up", "the node waits for an administrator's approval; none came within %v", timeout)
	case j.authURL != "":
		return errorf(codeLoginNeeded, "up", "nobody opened the login URL within %v", timeout)
	case !n.controlAnswers(context.Background()):
		return errorf(codeUnreachable, "up", "the control server %s did not answer within %v", n.controlURL(), timeout)
	default:
		return errorf(codeTimeout, "up", "the node was not running after %v (state %s)", timeout, j.state)
	}
}

func (n *Node) controlURL() string {
	if n.config.ControlURL != "" {
		return strings.TrimSuffix(n.config.ControlURL, "/")
	}
	return defaultControl
}

// watchControl notices that a control server that was away has come back, and
// makes the node try again then: its own pauses grow up to 30 s.
func (j *join) watchControl(ctx context.Context) {
	defer recoverGoroutine(j.node.events)
	pause := time.Duration(max(j.node.config.RetryMS, 50)) * time.Millisecond
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if j.node.controlAnswers(ctx) {
			if away {
				j.node.mu.Lock()
				ext := j.node.ext
				j.node.mu.Unlock()
				if ext != nil {
					ext.retryLogin()
				}
			}
			return
		}
		away = true
		j.node.events.send(event{Type: "control_unreachable", URL: j.node.controlURL()})
	}
}

// controlAnswers asks the control server for its public key, as every node does first.
func (n *Node) controlAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.controlURL()+"/key?v=1", nil)
	if err != nil {
		return false
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16))
	return true
}

// recoverGoroutine keeps a fault in one of our goroutines from ending the process.
func recoverGoroutine(ev *events) {
	if r := recover(); r != nil {
		ev.send(event{Type: "fault", Line: panicError("goroutine", r).Message})
	}
}
