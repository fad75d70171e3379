package tailnode

import (
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

func init() {
	scenes["quiet"] = playQuiet
	scenes["closed descriptors"] = playClosedDescriptors
	scenes["broken pipe"] = playBrokenPipe
}

// From New to Close a node writes nothing to standard output or standard error, and keeps
// its logs in its own directory.
func TestANodeIsQuiet(t *testing.T) {
	if written := runScene(t, "quiet"); written != "" {
		t.Errorf("it wrote %q", written)
	}
}

func playQuiet() error {
	return oneLife(func(int) {}, func(node *testNode) error {
		log.Print("a stray line")
		if got := os.Getenv("TS_LOGS_DIR"); got != node.dir {
			return fmt.Errorf("TS_LOGS_DIR is %q, not %q", got, node.dir)
		}
		return nil
	})
}

// A node works without the standard descriptors, and does not put its pipe on one of them.
func TestANodeNeedsNoStandardDescriptors(t *testing.T) { runScene(t, "closed descriptors") }

func playClosedDescriptors() error {
	for fd := range 3 {
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return oneLife(func(int) {}, func(node *testNode) error {
		for fd := range 3 {
			target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err == nil && flags&unix.O_ACCMODE == unix.O_WRONLY && strings.HasPrefix(target, "pipe:") {
				return fmt.Errorf("the event pipe is descriptor %d", fd)
			}
		}
		log.Print("a stray line")
		return nil
	})
}

// The process survives a reader that closes its end of the pipe (SIGPIPE).
func TestANodeOutlivesItsReader(t *testing.T) { runScene(t, "broken pipe") }

func playBrokenPipe() error {
	return oneLife(func(read int) { unix.Close(read) }, func(node *testNode) error {
		node.events.Warnf("not received")
		if n := events.Dropped(); n != 1 {
			return fmt.Errorf("%d events were dropped: the first closes the broken pipe", n)
		}
		return nil
	})
}

// oneLife joins a node with a verbose pipe, runs check, and closes the node.
func oneLife(withReader func(fd int), check func(*testNode) error) error {
	t := &sceneT{}
	defer t.cleanUp()
	net := startTailnet(t)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	config := net.config("node", "dev@example.com")
	config.Verbose = true
	node, err := New(config, fds[1])
	if err != nil {
		return err
	}
	unix.Close(fds[1])
	withReader(fds[0])
	if _, err := node.Up(tbtest.Limit); err != nil {
		return err
	}
	if err := check(&testNode{Node: node, t: t}); err != nil {
		return err
	}
	return node.Close(tbtest.Limit)
}
