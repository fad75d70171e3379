package devnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jsimonetti/rtnetlink"
	"golang.org/x/sys/unix"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// isolated is the variable that names the network which the child process makes and the
// grandchild runs on.
const isolated = "DEVNET_TEST_NETWORK"

// A devnet works with only lo up, and with a default route. In neither case does a packet
// leave the machine. Each case runs in its own network namespace, in which packets that
// would leave end in the test, and without privileges there: root marks its sockets where
// other users bind them to an interface.
func TestNothingLeavesTheMachine(t *testing.T) {
	for _, network := range []string{"only lo", "default route"} {
		t.Run(network, func(t *testing.T) {
			cmd := childTest(t, "TestIsolatedNetwork", network, 3*tbtest.Limit)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
			if os.Getuid() != 0 {
				cmd.SysProcAttr = newUserNamespace()
				cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
			}
			runChild(t, cmd)
		})
	}
}

// TestIsolatedNetwork is the child, which makes the network.
func TestIsolatedNetwork(t *testing.T) {
	network := os.Getenv(isolated)
	if network == "" {
		t.Skip("runs only as a child of TestNothingLeavesTheMachine")
	}
	interfaceUp(t, "lo")
	leaving := func() []string { return nil }
	if network == "default route" {
		leaving = defaultRouteInto(t)
		conn, err := net.Dial("udp4", "203.0.113.77:9")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "probe")
		conn.Close()
		tbtest.Eventually(t, "the probe is caught", func() bool { return len(leaving()) == 1 })
	}
	cmd := childTest(t, "TestOnIsolatedNetwork", network, 2*tbtest.Limit)
	cmd.SysProcAttr = newUserNamespace()
	runChild(t, cmd)
	for _, p := range leaving() {
		if !strings.Contains(p, "203.0.113.77") {
			t.Errorf("a packet left the machine: %s", p)
		}
	}
}

// TestOnIsolatedNetwork is the grandchild, with the devnet and its nodes.
func TestOnIsolatedNetwork(t *testing.T) {
	if os.Getenv(isolated) == "" {
		t.Skip("runs only as a grandchild of TestNothingLeavesTheMachine")
	}
	start := time.Now()
	d, _, client := twoNodes(t, Config{})
	t.Logf("two nodes took %v to join and talk; one STUN timeout alone takes 3 s", time.Since(start))
	// During an outage nodes look for a captive portal, other relays and DNS servers.
	do[done](t, d, "pause_control", nil)
	do[map[string]int](t, d, "drop_control", nil)
	do[map[string]int](t, d, "drop_derp", nil)
	time.Sleep(watchFor(t)) // nothing may happen
	do[done](t, d, "resume_control", nil)
	if _, err := client.get(t, "server.dev.tailnet.test", tbtest.Limit); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// childTest runs one test in another process, which prints its goroutines and ends if
// it takes longer than limit.
func childTest(t *testing.T, test, network string, limit time.Duration) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout="+limit.String())
	cmd.Env = append(os.Environ(), isolated+"="+network)
	return cmd
}

func newUserNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

func runChild(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EINVAL):
		t.Skipf("no namespaces here: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
}

// watchFor returns how long to look for packets: DEVNET_TEST_WATCH, or 2 s.
func watchFor(t *testing.T) time.Duration {
	if s := os.Getenv("DEVNET_TEST_WATCH"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return 2 * time.Second
}

func interfaceUp(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		t.Fatal(err)
	}
}

// defaultRouteInto makes a default route that ends in this test, and returns a
// function that lists the packets that took it.
func defaultRouteInto(t *testing.T) (leaving func() []string) {
	t.Helper()
	tun := openTUN(t, "tun0")
	routeTo(t, "tun0")
	var mu sync.Mutex
	var packets []string
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 65536)
		for {
			n, err := tun.Read(buf)
			if err != nil {
				return
			}
			if p := describePacket(buf[:n]); p != "" {
				mu.Lock()
				packets = append(packets, p)
				mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { tun.Close(); tbtest.Receive(t, "the reader ends", read) })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), packets...)
	}
}

func openTUN(t *testing.T, name string) io.ReadCloser {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no TUN device here: %v", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		t.Skipf("no TUN device here: %v", err)
	}
	// Non-blocking, so that Close ends a Read.
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun")
}

// routeTo gives the interface an address and the default route. The addresses are private:
// nodes ask only home routers for port mappings.
func routeTo(t *testing.T, name string) {
	t.Helper()
	link, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	own, gateway := net.IPv4(192, 168, 77, 2).To4(), net.IPv4(192, 168, 77, 1).To4()
	if err := conn.Address.New(&rtnetlink.AddressMessage{
		Family:       unix.AF_INET,
		PrefixLength: 24,
		Index:        uint32(link.Index),
		Attributes:   &rtnetlink.AddressAttributes{Address: own, Local: own},
	}); err != nil {
		t.Fatal(err)
	}
	interfaceUp(t, name)
	if err := conn.Route.Add(&rtnetlink.RouteMessage{
		Family:     unix.AF_INET,
		Table:      unix.RT_TABLE_MAIN,
		Protocol:   unix.RTPROT_BOOT,
		Scope:      unix.RT_SCOPE_UNIVERSE,
		Type:       unix.RTN_UNICAST,
		Attributes: rtnetlink.RouteAttributes{Gateway: gateway, OutIface: uint32(link.Index)},
	}); err != nil {
		t.Fatal(err)
	}
}

// describePacket returns a packet's ends. It returns "" for packets that the kernel sends
// when an interface comes up (ICMPv6 and its multicast reports).
func describePacket(p []byte) string {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return fmt.Sprintf("%v > %v protocol %d: %.64q", net.IP(p[12:16]), net.IP(p[16:20]), p[9], p[20:])
	case len(p) >= 40 && p[0]>>4 == 6 && p[6] != 58 && p[6] != 0:
		return fmt.Sprintf("%v > %v protocol %d: %.64q", net.IP(p[8:24]), net.IP(p[24:40]), p[6], p[40:])
	}
	return ""
}
