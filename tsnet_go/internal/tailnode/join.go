package main

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"tailscale.com/health"
	"tailscale.com/ipn"
)

// join is one attempt to join the tailnet.
type join struct {
	node    *Node
	ctx     context.Context
	timeout time.Duration
	state   ipn.State
	authURL string

	// waits is set when a person has to act: the control server did its part.
	waits atomic.Bool
	// control is what the control server did when it was last asked.
	control atomic.Int32
	// controlFailure is why it last gave no answer.
	controlFailure atomic.Pointer[error]
}

// up joins the tailnet and returns when the node is running. tsnet's own Up
// waits for ever on a login that cannot happen; this one knows why it waits.
func (n *Node) up(timeout time.Duration) (*Status, error) {
	ctx, cancel := context.WithTimeout(n.life, timeout)
	defer cancel()
	if err := n.beginJoin(cancel); err != nil {
		return nil, err
	}
	defer n.endJoin()

	j := &join{node: n, ctx: ctx, timeout: timeout}
	if err := j.run(); err != nil {
		if ctx.Err() != nil {
			return nil, j.ended()
		}
		return nil, err
	}
	return n.status()
}

func (n *Node) beginJoin(cancel context.CancelFunc) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return errorf(codeClosed, "up", "the node is closed")
	}
	if n.upCancel != nil {
		return errorf(codeBadArgument, "up", "the node is joining already")
	}
	n.upCancel = cancel
	return nil
}

func (n *Node) endJoin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.upCancel = nil
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

func (j *join) run() error {
	go j.watchControl()
	started := make(chan error, 1)
	go func() {
		defer recoverGoroutine(j.node.events)
		started <- j.node.start()
	}()
	select {
	case err := <-started:
		if err != nil {
			return err
		}
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
	if j.node.loginFailed() {
		// An earlier join ended, and tailscale may be in one of its long pauses.
		j.node.retryLogin()
	}
	if err := j.wait(); err != nil {
		return err
	}
	// Now that the node runs, tsnet's Up returns at once; it clears what an
	// earlier process may have left in the serve configuration.
	if _, err := j.node.srv.Up(j.ctx); err != nil {
		return errorf(codeInternal, "up", "%v", err)
	}
	j.node.keepPort()
	return nil
}

// wait follows the backend until it runs or cannot run.
func (j *join) wait() error {
	for {
		again, err := j.follow()
		if err != nil || !again {
			return err
		}
	}
}

// follow is wait for as long as the backend keeps one watcher: it drops a slow one.
func (j *join) follow() (again bool, err error) {
	client, err := j.node.srv.LocalClient()
	if err != nil {
		return false, errorf(codeInternal, "up", "%v", err)
	}
	watcher, err := client.WatchIPNBus(j.ctx, ipn.NotifyInitialState)
	if err != nil {
		return false, errorf(codeInternal, "up", "%v", err)
	}
	defer watcher.Close()
	for {
		notify, err := watcher.Next()
		if err != nil {
			return false, errorf(codeInternal, "up", "the backend's notifications ended: %v", err)
		}
		if message := notify.ErrMessage; message != nil {
			if again, err := judge(*message); err != nil || again {
				return again, err
			}
			j.node.events.warnf("%s", *message)
		}
		if url := notify.BrowseToURL; url != nil && *url != "" && *url != j.authURL {
			j.authURL = *url
			j.waits.Store(true)
			j.node.events.send(event{Type: "auth_url", URL: *url})
		}
		if notify.State == nil {
			continue
		}
		j.state = *notify.State
		switch j.state {
		case ipn.Running:
			return false, nil
		case ipn.NeedsMachineAuth:
			j.waits.Store(true)
		}
	}
}

// The backend's error messages that are no refusal of the login, by their
// beginnings: they have no type.
const (
	watcherDropped = "IPN bus consumer fell behind"   // ipnlocal
	rateLimited    = "node registration rate limited" // controlclient; it tries again by itself
	logsRequired   = "tailnet requires logging"       // ipnlocal; it has stopped the node
)

// judge tells what an error message of the backend means for a join: the end, a
// new watcher, or nothing.
func judge(message string) (again bool, err error) {
	switch {
	case strings.HasPrefix(message, watcherDropped):
		return true, nil
	case strings.HasPrefix(message, rateLimited):
		return false, nil
	case strings.HasPrefix(message, logsRequired):
		return false, errorf(codeLogsNeeded, "up", "this tailnet takes only nodes that upload their logs, which tailbone never does")
	default:
		return false, errorf(codeLoginRefused, "up", "the control server refused this node: %s", message)
	}
}

// ended tells why a join ended early: by a close, a cancel, or its deadline.
func (j *join) ended() error {
	n := j.node
	switch {
	case n.life.Err() != nil:
		return errorf(codeClosed, "up", "the node was closed while it joined")
	case errors.Is(j.ctx.Err(), context.Canceled):
		return errorf(codeCancelled, "up", "joining was cancelled")
	case j.state == ipn.NeedsMachineAuth:
		return errorf(codeApproval, "up", "the node waits for an administrator's approval; none came within %v", j.timeout)
	case j.authURL != "":
		return errorf(codeLoginNeeded, "up", "nobody opened the login URL within %v", j.timeout)
	case j.control.Load() != controlAnswered:
		// Also when the first question is still open: then it was for all of the time.
		return errorf(codeUnreachable, "up", "the control server %s did not answer within %v%s",
			n.controlURL(), j.timeout, j.whyNoAnswer())
	default:
		return errorf(codeTimeout, "up", "the node was not running after %v (state %s)%s", j.timeout, j.state, n.loginError())
	}
}

// whyNoAnswer returns why the control server last gave no answer, for the end of a
// message. A server that is only silent has no reason.
func (j *join) whyNoAnswer() string {
	failure := j.controlFailure.Load()
	if failure == nil || errors.Is(*failure, context.DeadlineExceeded) || errors.Is(*failure, context.Canceled) {
		return ""
	}
	return ": " + (*failure).Error()
}

// loginFailed reports whether tailscale's last attempt to log in failed, so that
// it may be waiting before the next.
func (n *Node) loginFailed() bool {
	tracker := n.srv.Sys().HealthTracker.Get()
	return tracker.IsUnhealthy(health.LoginStateWarnable)
}

// loginError is what tailscale says of the last attempt, for the end of a message.
func (n *Node) loginError() string {
	if !n.isStarted() || health.LoginStateWarnable == nil {
		return ""
	}
	state := n.srv.Sys().HealthTracker.Get().CurrentState()
	if warning, ok := state.Warnings[health.LoginStateWarnable.Code]; ok {
		return ": " + warning.Text
	}
	return ""
}

// retryLogin makes tailscale try to log in now, instead of when its own pause
// (which grows up to 30 s) is over.
func (n *Node) retryLogin() {
	n.mu.Lock()
	ext := n.ext
	n.mu.Unlock()
	if ext != nil {
		ext.retryLogin(n.config.Ephemeral)
	}
}
