package tailnode

import (
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// Bridge is a Listener or a Forward. It is closed with its node.
type Bridge interface {
	Node() *Node
	Close(drain time.Duration)
}

// addBridge makes a bridge end with the node. It fails if the node is closed or if
// conflicts returns an error for another bridge of the node.
func (n *Node) addBridge(op string, bridge Bridge, conflicts func(other Bridge) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return errClosed(op)
	}
	for other := range n.bridges {
		if err := conflicts(other); err != nil {
			return err
		}
	}
	n.bridges[bridge] = struct{}{}
	return nil
}

func (n *Node) removeBridge(bridge Bridge) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.bridges, bridge)
}

func errClosed(op string) error { return tberr.Errorf(tberr.Closed, op, "the node is closed") }
