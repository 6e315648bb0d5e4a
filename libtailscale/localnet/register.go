package main

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// serveRegister answers POST /machine/register: a node that joins, comes back,
// changes its key, waits for its person to log in, or logs out.
//
// What the request asks for takes effect before the answer is delayed, so that
// a client which is killed while it waits has had its effect all the same.
func (c *control) serveRegister(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var req tailcfg.RegisterRequest
	if !readJSON(w, r, &req) {
		return
	}
	if req.NodeKey.IsZero() || req.Hostinfo == nil {
		writeError(w, http.StatusBadRequest, "a register request needs NodeKey and Hostinfo")
		return
	}
	ctx := r.Context()
	if isLogout(&req) {
		res := c.net.logout(machine, &req)
		c.faults.delayLogout(ctx)
		writeJSON(w, http.StatusOK, res)
		return
	}
	res, n := c.register(r, machine, &req)
	c.faults.delay(ctx, r.URL.Path)
	if n != nil {
		c.net.answered(n)
	}
	writeJSON(w, http.StatusOK, res)
}

// isLogout reports whether the request is a logout: an expiry in the past.
func isLogout(req *tailcfg.RegisterRequest) bool {
	return !req.Expiry.IsZero() && req.Expiry.Before(time.Now())
}

// register waits for the person, where the request follows up a login, and then
// lets the node in or says why not. The node that it returns stays marked as
// having an answer on its way.
func (c *control) register(r *http.Request, machine key.MachinePublic, req *tailcfg.RegisterRequest) (tailcfg.RegisterResponse, *node) {
	var via *login
	if req.Followup != "" {
		via = c.net.loginByURL(req.Followup)
		switch {
		case via == nil || via.nodeKey != req.NodeKey:
			return tailcfg.RegisterResponse{Error: "auth path not found"}, nil
		case !via.wait(r.Context()):
			return tailcfg.RegisterResponse{AuthURL: req.Followup}, nil
		case via.refusal != "":
			return tailcfg.RegisterResponse{Error: via.refusal}, nil
		}
	}
	return c.net.register(c.url(), machine, req, via)
}

// logout ends a node: it is removed if it had asked to be ephemeral, and
// expired otherwise. An ephemeral key alone does not remove it; the time-out
// does that.
func (t *tailnet) logout(machine key.MachinePublic, req *tailcfg.RegisterRequest) tailcfg.RegisterResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[req.NodeKey]
	if n == nil || n.machine != machine {
		return tailcfg.RegisterResponse{NodeKeyExpired: true}
	}
	t.journal.add("logout", n, "")
	if n.ephemeralRequest {
		t.removeLocked(n, "logout")
	} else {
		t.expireLocked(n, "logout")
	}
	return tailcfg.RegisterResponse{NodeKeyExpired: true}
}

// admission is what a node may be, once a key or a person has vouched for it.
type admission struct {
	user             *user
	tags             []string
	ephemeral        bool // the key or the node said so
	ephemeralRequest bool // the node said so
	authorized       bool
	key              *authKey // nil for a person
}

// register lets a node in, resumes one that is known, or answers with the
// reason or with the URL of a login.
func (t *tailnet) register(controlURL string, machine key.MachinePublic, req *tailcfg.RegisterRequest, via *login) (tailcfg.RegisterResponse, *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[req.NodeKey]
	if n != nil && n.machine != machine {
		return t.refusedLocked(req, "node key belongs to another machine"), nil
	}
	if n != nil && via == nil {
		if refusal := t.recheckLocked(req); refusal != "" {
			return t.refusedLocked(req, refusal), nil
		}
		if n.expired {
			return tailcfg.RegisterResponse{NodeKeyExpired: true}, nil
		}
		t.applyHostinfoLocked(n, req.Hostinfo)
		t.journal.add("resumed", n, "")
		return t.acceptedLocked(n), n
	}
	adm, refusal := t.admitLocked(req, via)
	if refusal != "" {
		return t.refusedLocked(req, refusal), nil
	}
	if adm == nil {
		return tailcfg.RegisterResponse{AuthURL: t.loginLocked(controlURL, req).url}, nil
	}
	return t.enrolLocked(n, machine, req, adm)
}

// recheckLocked says what is wrong with the auth key that a node brings along
// with a node key that is still good. The real control server refuses the node
// for a key that has expired since (tailscale/tailscale#19501); a single-use
// key that it used itself is taken to be fine.
func (t *tailnet) recheckLocked(req *tailcfg.RegisterRequest) (refusal string) {
	if !t.settings.RecheckKeys || req.Auth == nil || req.Auth.AuthKey == "" {
		return ""
	}
	if k := t.keys[req.Auth.AuthKey]; k != nil && !k.Expired {
		return ""
	}
	_, refusal = t.checkKeyLocked(req.Auth.AuthKey)
	return refusal
}

// refusedLocked is the answer to a node that may not join.
func (t *tailnet) refusedLocked(req *tailcfg.RegisterRequest, why string) tailcfg.RegisterResponse {
	t.journal.add("refused", &node{hostinfo: req.Hostinfo}, why)
	return tailcfg.RegisterResponse{Error: why}
}

// acceptedLocked is the answer to a node that is in.
func (t *tailnet) acceptedLocked(n *node) tailcfg.RegisterResponse {
	n.answering++
	u := t.ownerLocked(n)
	return tailcfg.RegisterResponse{
		User:              tailcfg.User{ID: u.id, DisplayName: u.display},
		Login:             tailcfg.Login{ID: tailcfg.LoginID(u.id), Provider: "localnet", LoginName: u.login, DisplayName: u.display},
		MachineAuthorized: n.authorized,
	}
}

// answered notes that the answer to n's registration has been written: from now
// on the node is away until it opens its map stream.
func (t *tailnet) answered(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.answering--
	if !n.online() {
		n.offlineSince = time.Now()
		t.rearmReaper()
	}
}

// admitLocked finds out who vouches for the request: a person who logged in, an
// auth key, or nobody yet (nil and no refusal).
func (t *tailnet) admitLocked(req *tailcfg.RegisterRequest, via *login) (_ *admission, refusal string) {
	adm := &admission{ephemeralRequest: req.Ephemeral, authorized: !t.settings.RequireApproval}
	switch {
	case via != nil:
		adm.user = via.user
		adm.ephemeralRequest = via.ephemeral || req.Ephemeral
	case req.Auth != nil && req.Auth.AuthKey != "":
		k, refusal := t.checkKeyLocked(req.Auth.AuthKey)
		if refusal != "" {
			return nil, refusal
		}
		adm.user, adm.tags, adm.key = k.user, k.Tags, k
		adm.ephemeral = k.Ephemeral
		adm.authorized = adm.authorized || k.Preauthorized
	default:
		return nil, ""
	}
	adm.ephemeral = adm.ephemeral || adm.ephemeralRequest
	requested := req.Hostinfo.RequestTags
	if refusal := t.checkTagsLocked(requested, adm.tags, adm.user); refusal != "" {
		return nil, refusal
	}
	if len(requested) > 0 {
		adm.tags = slices.Sorted(slices.Values(requested))
	}
	return adm, ""
}

// enrolLocked puts the node of an admitted request into the tailnet. It is n,
// or the node whose key is being replaced, or a device that the same owner had
// on the same machine, or a new one.
func (t *tailnet) enrolLocked(n *node, machine key.MachinePublic, req *tailcfg.RegisterRequest, adm *admission) (tailcfg.RegisterResponse, *node) {
	kind := "rotated"
	if n == nil {
		n = t.sameDeviceLocked(machine, req, adm)
	}
	if n == nil {
		var err error
		if n, err = t.addNodeLocked(req.Hostinfo); err != nil {
			return t.refusedLocked(req, err.Error()), nil
		}
		kind = "registered"
		n.authorized = adm.authorized
	}
	delete(t.byKey, n.key)
	n.machine, n.key, n.capVersion = machine, req.NodeKey, req.Version
	t.byKey[n.key] = n
	n.user, n.tags = adm.user, adm.tags
	n.authorized = n.authorized || adm.authorized
	n.ephemeral, n.ephemeralRequest = adm.ephemeral, adm.ephemeralRequest
	n.expired, n.keyExpiry = false, time.Time{}
	if len(n.tags) == 0 {
		n.keyExpiry = time.Now().Add(t.settings.KeyExpiry).UTC().Truncate(time.Second)
	}
	n.signature = t.acceptSignatureLocked(req)
	t.applyHostinfoLocked(n, req.Hostinfo)
	t.journal.add(kind, n, fmt.Sprintf("user=%s tags=%v ephemeral=%v", adm.user.login, n.tags, n.ephemeral))
	if adm.key != nil {
		adm.key.uses++
		t.journal.add("key-used", n, adm.key.id)
	}
	t.rearmReaper()
	t.changedLocked(n)
	return t.acceptedLocked(n), n
}

// sameDeviceLocked finds the device that a request with an unknown node key
// belongs to: one that names its former key, or that logs in again from the
// same machine to the same owner.
func (t *tailnet) sameDeviceLocked(machine key.MachinePublic, req *tailcfg.RegisterRequest, adm *admission) *node {
	if n := t.byKey[req.OldNodeKey]; n != nil && n.machine == machine {
		return n
	}
	for _, n := range t.nodes {
		if n.machine == machine && n.user == adm.user && (len(n.tags) > 0) == (len(adm.tags) > 0) {
			return n
		}
	}
	return nil
}

// applyHostinfoLocked takes over what a node says about itself.
func (t *tailnet) applyHostinfoLocked(n *node, hi *tailcfg.Hostinfo) {
	if hi == nil || n.hostinfo.Equal(hi) && n.label != "" {
		return
	}
	n.hostinfo = hi
	if ni := hi.NetInfo; ni != nil && ni.PreferredDERP != 0 {
		n.homeDERP = ni.PreferredDERP
	}
	t.renameLocked(n)
	t.changedLocked(n)
}
