package tailnode

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"tailscale.com/health"
	"tailscale.com/ipn"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// join is one attempt to join the tailnet.
type join struct {
	node    *Node
	ctx     context.Context
	timeout time.Duration
	state   ipn.State
	authURL string

	needsPerson    atomic.Bool           // a person must act: the control server did its part
	control        atomic.Int32          // whether the control server answered the last probe
	controlFailure atomic.Pointer[error] // why it did not answer
}

// Up joins the tailnet and returns when the node is running. tsnet's own Up waits
// forever for a login that cannot succeed; this one returns why it does not.
func (n *Node) Up(timeout time.Duration) (*Status, error) {
	ctx, cancel := context.WithTimeout(n.ctx, timeout)
	defer cancel()
	if err := n.beginJoin(cancel); err != nil {
		return nil, err
	}
	defer n.endJoin()

	j := &join{node: n, ctx: ctx, timeout: timeout}
	if err := j.run(); err != nil {
		if ctx.Err() != nil {
			return nil, j.incomplete()
		}
		return nil, err
	}
	return n.Status()
}

func (n *Node) beginJoin(cancel context.CancelFunc) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return errClosed("up")
	}
	if n.cancelJoin != nil {
		return tberr.Errorf(tberr.BadArgument, "up", "the node is already joining")
	}
	n.cancelJoin = cancel
	return nil
}

func (n *Node) endJoin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cancelJoin = nil
}

// Cancel ends an Up that is in progress.
func (n *Node) Cancel() {
	n.mu.Lock()
	cancel := n.cancelJoin
	n.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func (j *join) run() error {
	go j.watchControl()
	started := make(chan error, 1)
	go func() {
		defer j.node.events.Recover()
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
		// An earlier Up ended, and tailscale may be in a long backoff.
		j.node.retryLogin()
	}
	if err := j.awaitRunning(); err != nil {
		return err
	}
	// Now that the node runs, tsnet's Up returns at once. It clears what an earlier
	// process may have left in the serve configuration.
	if _, err := j.node.srv.Up(j.ctx); err != nil {
		return tberr.Errorf(tberr.Internal, "up", "%v", err)
	}
	j.node.savePort()
	return nil
}

// awaitRunning waits until the backend runs, or cannot run.
func (j *join) awaitRunning() error {
	for {
		again, err := j.watchBackend()
		if err != nil || !again {
			return err
		}
	}
}

// watchBackend is awaitRunning with one watcher. It asks for another one if the backend
// drops the watcher for being slow.
func (j *join) watchBackend() (again bool, err error) {
	client, err := j.node.srv.LocalClient()
	if err != nil {
		return false, tberr.Errorf(tberr.Internal, "up", "%v", err)
	}
	watcher, err := client.WatchIPNBus(j.ctx, ipn.NotifyInitialState)
	if err != nil {
		return false, tberr.Errorf(tberr.Internal, "up", "%v", err)
	}
	defer watcher.Close()
	for {
		notify, err := watcher.Next()
		if err != nil {
			return false, tberr.Errorf(tberr.Internal, "up", "the backend's notifications ended: %v", err)
		}
		if message := notify.ErrMessage; message != nil {
			if again, err := classifyBackendError(*message); err != nil || again {
				return again, err
			}
			j.node.events.Warnf("%s", *message)
		}
		if url := notify.BrowseToURL; url != nil && *url != "" && *url != j.authURL {
			j.authURL = *url
			j.needsPerson.Store(true)
			j.node.events.Send(events.Event{Type: "auth_url", URL: *url})
		}
		if notify.State == nil {
			continue
		}
		j.state = *notify.State
		switch j.state {
		case ipn.Running:
			return false, nil
		case ipn.NeedsMachineAuth:
			j.needsPerson.Store(true)
		}
	}
}

// Beginnings of the backend's error messages that do not refuse the login; the
// messages have no type.
const (
	watcherDropped = "IPN bus consumer fell behind"   // ipnlocal
	rateLimited    = "node registration rate limited" // controlclient; it retries by itself
	logsRequired   = "tailnet requires logging"       // ipnlocal; it has stopped the node
)

// classifyBackendError returns the error that ends the join because of an error message
// of the backend, or again if the join needs another watcher, or neither if the join
// continues.
func classifyBackendError(message string) (again bool, err error) {
	switch {
	case strings.HasPrefix(message, watcherDropped):
		return true, nil
	case strings.HasPrefix(message, rateLimited):
		return false, nil
	case strings.HasPrefix(message, logsRequired):
		return false, tberr.Errorf(tberr.LogsNeeded, "up", "this tailnet accepts only nodes that upload their logs, which tailbone never does")
	default:
		return false, tberr.Errorf(tberr.LoginRefused, "up", "the control server refused this node: %s", message)
	}
}

// incomplete returns why a join ended before the node was running: because of a close,
// a cancel or its timeout.
func (j *join) incomplete() error {
	n := j.node
	switch {
	case n.ctx.Err() != nil:
		return tberr.Errorf(tberr.Closed, "up", "the node was closed while it joined")
	case errors.Is(j.ctx.Err(), context.Canceled):
		return tberr.Errorf(tberr.Canceled, "up", "joining was cancelled")
	case j.state == ipn.NeedsMachineAuth:
		return tberr.Errorf(tberr.ApprovalNeeded, "up", "the node waits for an administrator's approval; none came within %v", j.timeout)
	case j.authURL != "":
		return tberr.Errorf(tberr.LoginNeeded, "up", "nobody opened the login URL within %v", j.timeout)
	case j.control.Load() != controlReachable:
		// The first probe may still be waiting: then there was no answer all the time.
		return tberr.Errorf(tberr.Unreachable, "up", "the control server %s did not answer within %v%s",
			n.controlURL(), j.timeout, j.controlError())
	default:
		return tberr.Errorf(tberr.Timeout, "up", "the node was not running after %v (state %s)%s", j.timeout, j.state, n.loginError())
	}
}

// controlError returns why the control server did not answer the last probe, for the
// end of a message. It is empty for a server that is only silent.
func (j *join) controlError() string {
	failure := j.controlFailure.Load()
	if failure == nil || errors.Is(*failure, context.DeadlineExceeded) || errors.Is(*failure, context.Canceled) {
		return ""
	}
	return ": " + (*failure).Error()
}

// loginFailed reports whether tailscale's last login attempt failed, so that it may be
// waiting before the next.
func (n *Node) loginFailed() bool {
	tracker := n.srv.Sys().HealthTracker.Get()
	return tracker.IsUnhealthy(health.LoginStateWarnable)
}

// loginError returns what tailscale says about the last login attempt, for the end of a
// message.
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

// retryLogin makes tailscale log in now instead of after its backoff, which grows up to
// 30 s.
func (n *Node) retryLogin() {
	n.mu.Lock()
	ext := n.ext
	n.mu.Unlock()
	if ext != nil {
		ext.retryLogin(n.config.Ephemeral)
	}
}
