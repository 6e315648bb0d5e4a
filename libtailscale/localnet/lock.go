package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"

	"tailscale.com/tailcfg"
	"tailscale.com/tka"
	"tailscale.com/tstest/tkatest"
	"tailscale.com/types/key"
	"tailscale.com/types/tkatype"
)

// tailnetLock is the tailnet's lock: an authority whose only trusted key is
// control's own. Nodes that have no signature by it are shut out by the others.
type tailnetLock struct {
	signer    key.NLPrivate
	secret    []byte // disables the lock when shown to the nodes
	genesis   tka.AUM
	storage   *tka.Mem
	authority *tka.Authority
	disabled  bool
}

// enableLock switches tailnet lock on and signs the nodes that are in already.
// Nodes that join from now on stay locked out until POST /nodes/{id}/sign.
func (t *tailnet) enableLock() (*tailnetLock, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lock != nil && !t.lock.disabled {
		return t.lock, nil
	}
	l := &tailnetLock{signer: key.NewNLPrivate(), secret: make([]byte, 32), storage: tka.ChonkMem()}
	rand.Read(l.secret)
	state := tka.State{
		Keys:              []tka.Key{{Kind: tka.Key25519, Public: l.signer.Public().Verifier(), Votes: 1}},
		DisablementValues: [][]byte{tka.DisablementKDF(l.secret)},
		StateID1:          uint64(len(t.nodes)) + 1,
		StateID2:          t.revision + 1,
	}
	var err error
	if l.authority, l.genesis, err = tka.Create(l.storage, state, l.signer); err != nil {
		return nil, fmt.Errorf("creating the authority: %w", err)
	}
	t.lock = l
	for _, n := range t.nodes {
		if err := t.signLocked(n); err != nil {
			return nil, err
		}
	}
	t.journal.add("lock-enabled", nil, "")
	t.changedLocked(nil)
	return l, nil
}

// disableLock switches tailnet lock off.
func (t *tailnet) disableLock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lock == nil || t.lock.disabled {
		return
	}
	t.lock.disabled = true
	t.journal.add("lock-disabled", nil, "")
	t.changedLocked(nil)
}

// signLocked signs n's node key, which lets it in.
func (t *tailnet) signLocked(n *node) error {
	if t.lock == nil || t.lock.disabled {
		return errors.New("tailnet lock is not enabled")
	}
	pub, err := n.key.MarshalBinary()
	if err != nil {
		return err
	}
	sig := tka.NodeKeySignature{SigKind: tka.SigDirect, KeyID: t.lock.signer.KeyID(), Pubkey: pub}
	if sig.Signature, err = t.lock.signer.SignNKS(sig.SigHash()); err != nil {
		return err
	}
	n.signature = sig.Serialize()
	t.journal.add("signed", n, "")
	t.changedLocked(n)
	return nil
}

// acceptSignatureLocked returns the signature that a registering node brings
// along (from a signed auth key, or for its next node key), if it is good.
func (t *tailnet) acceptSignatureLocked(req *tailcfg.RegisterRequest) tkatype.MarshaledSignature {
	if t.lock == nil || len(req.NodeKeySignature) == 0 || t.lock.authority.NodeKeyAuthorized(req.NodeKey, req.NodeKeySignature) != nil {
		return nil
	}
	return req.NodeKeySignature
}

// info is what a map response says about the lock.
func (l *tailnetLock) info() *tailcfg.TKAInfo {
	if l.disabled {
		return &tailcfg.TKAInfo{Disabled: true}
	}
	return &tailcfg.TKAInfo{Head: l.authority.Head().String()}
}

// withLock runs h with the tailnet's lock held and a tailnet lock present.
func (c *control) withLock(w http.ResponseWriter, h func(*tailnetLock)) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.net.lock == nil {
		writeError(w, http.StatusBadRequest, "tailnet lock is not enabled")
		return
	}
	h(c.net.lock)
}

// serveLockBootstrap gives a node the beginning of the authority's history, or
// the secret that ends it. The handlers of tkatest answer errors themselves.
func (c *control) serveLockBootstrap(w http.ResponseWriter, r *http.Request, _ key.MachinePublic) {
	c.withLock(w, func(l *tailnetLock) {
		res := tailcfg.TKABootstrapResponse{GenesisAUM: l.genesis.Serialize()}
		if l.disabled {
			res = tailcfg.TKABootstrapResponse{DisablementSecret: l.secret}
		}
		_, _ = tkatest.HandleTKABootstrap(w, r, res)
	})
}

func (c *control) serveLockOffer(w http.ResponseWriter, r *http.Request, _ key.MachinePublic) {
	c.withLock(w, func(l *tailnetLock) { _ = tkatest.HandleTKASyncOffer(w, r, l.authority, l.storage) })
}

func (c *control) serveLockSend(w http.ResponseWriter, r *http.Request, _ key.MachinePublic) {
	c.withLock(w, func(l *tailnetLock) {
		_ = tkatest.HandleTKASyncSend(w, r, l.authority, l.storage)
		c.net.changedLocked(nil)
	})
}

// serveLockSign takes a signature that another trusted node made.
func (c *control) serveLockSign(w http.ResponseWriter, r *http.Request, _ key.MachinePublic) {
	c.withLock(w, func(l *tailnetLock) {
		sig, signed, err := tkatest.HandleTKASign(w, r, l.authority)
		if n := (*node)(nil); err == nil {
			if n = c.net.byKey[*signed]; n != nil {
				n.signature = *sig
				c.net.journal.add("signed", n, "")
				c.net.changedLocked(n)
			}
		}
	})
}
