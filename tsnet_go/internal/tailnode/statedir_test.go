package tailnode

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// A node keeps its UDP port over a restart, so that its peers find it again.
func TestANodeKeepsItsPort(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	config := net.config("node", "dev@example.com")
	var ports []uint16
	for range 2 {
		node := newTestNode(t, config)
		if _, err := node.Up(tbtest.Limit); err != nil {
			t.Fatal(err)
		}
		conn, _ := node.srv.Sys().MagicSock.GetOK()
		ports = append(ports, conn.LocalPort())
		if err := node.Close(tbtest.Limit); err != nil {
			t.Fatal(err)
		}
	}
	if ports[0] == 0 || ports[0] != ports[1] {
		t.Errorf("the ports are %v", ports)
	}
}

// If the port is in use or the file is invalid, the node takes another port and records
// that one.
func TestANodeStartsWithoutItsPort(t *testing.T) {
	taken, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.LocalAddr().(*net.UDPAddr).Port
	for what, text := range map[string]string{
		"taken": strconv.Itoa(port), "too big": "99999", "no number": "x", "nothing": "",
	} {
		t.Run(what, func(t *testing.T) {
			checkNoLeaks(t)
			net := startTailnet(t)
			config := net.config("node", "dev@example.com")
			path := filepath.Join(config.Dir, portFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			node := newTestNode(t, config)
			if _, err := node.Up(tbtest.Limit); err != nil {
				t.Fatal(err)
			}
			if now := lastPort(config.Dir); now == 0 || int(now) == port {
				t.Errorf("the recorded port is %d", now)
			}
			if err := node.Close(tbtest.Limit); err != nil {
				t.Fatal(err)
			}
		})
	}
}
