#ifndef TAILSCALE_H
#define TAILSCALE_H

/*
 * The C contract of the node: Tailscale's tsnet behind a C archive.
 *
 * This header is the only place that declares it: cgo checks the Go code against
 * it, and build_ffi.py gives the same text to cffi.
 *
 * Rules that hold for every call
 *
 *  - The result is TAILSCALE_OK (0) or one of the TAILSCALE_ERR_* codes. When it
 *    is not 0, *err is a text of this call's own: what happened, for a person. It
 *    never holds a secret of the configuration. No call shares a "last error".
 *  - Every string that a call hands out (results and errors) belongs to the
 *    caller, who frees it with tailscale_free. On failure no result is set.
 *  - Strings are UTF-8 and end in NUL. Times are milliseconds; a timeout_ms of 0
 *    or less is refused, so that nothing can block for ever.
 *  - File descriptors that are handed out belong to the caller. They are
 *    close-on-exec. The end that stays in Go is non-blocking; the caller's end
 *    starts out blocking. Both ends may be half-closed (shutdown(SHUT_WR)); the
 *    other direction goes on.
 *  - Calls may come from any thread. tailscale_close may come at any time, also
 *    while another call on the same node is under way: that call then ends with
 *    TAILSCALE_ERR_CLOSED.
 *  - After fork the child must not call anything here: the Go runtime's threads
 *    do not exist there, and the call would hang.
 *
 * The first tailscale_new removes tsnet's own variables (TS_AUTHKEY, TS_AUTH_KEY,
 * TS_CLIENT_SECRET, TS_CLIENT_ID, TS_ID_TOKEN, TS_AUDIENCE, TS_CONTROL_URL,
 * TSNET_FORCE_LOGIN) from the process's environment, so that a node knows what
 * its configuration says and nothing else.
 */

enum {
    TAILSCALE_OK = 0,
    TAILSCALE_ERR_INTERNAL = 1,       /* a defect, or an error of no other kind */
    TAILSCALE_ERR_INVALID = 2,        /* an argument or the configuration is wrong */
    TAILSCALE_ERR_CLOSED = 3,         /* no such node, or it was closed meanwhile */
    TAILSCALE_ERR_TIMEOUT = 4,        /* timeout_ms passed */
    TAILSCALE_ERR_NOT_ON_TAILNET = 5, /* the guard: no peer and no accepted route owns the address */
    TAILSCALE_ERR_REFUSED = 6,        /* the peer refused the connection (TCP RST) */
    TAILSCALE_ERR_UNREACHABLE = 7,    /* no path to the peer */
    TAILSCALE_ERR_KEY = 8,            /* the OAuth client secret was refused or lacks a right */
    TAILSCALE_ERR_STATE = 9           /* the state directory cannot be used */
};

/*
 * tailscale_new makes a node and does not start it; nothing is sent.
 *
 * config is one JSON object; unknown members are refused:
 *   hostname            string   the name to ask control for (required)
 *   state_dir           string   an existing directory for the node's keys (required)
 *   control_url         string   "" is Tailscale's own control server
 *   auth_key            string   "" for none; an OAuth client secret works here too
 *   client_secret       string   OAuth client secret, exchanged for a key at start; needs tags
 *   tags                [string] tags to ask for, each with "tag:"
 *   ephemeral           bool     the device is removed at logout
 *   accept_routes       bool     use the subnet routes that peers offer
 *   upload_logs         bool     let tsnet upload its log to Tailscale; the first node decides for the process
 *   allow_host_network  bool     let dials leave by the host's network for what the tailnet does not own
 *   verbose             bool     the node's whole log on stderr, redacted
 *   redact              [string] values that must not show in that log
 * *node is a handle, never reused in this process.
 */
int tailscale_new(char *config, int *node, char **err);

/*
 * tailscale_start starts the node. It does not wait for it to run: the state,
 * a login URL and errors come from LocalAPI's watch-ipn-bus (see
 * tailscale_loopback). It takes as long as an exchange of the OAuth client
 * secret does, and that is what timeout_ms bounds. After an error the node can
 * only be closed. Calling it again returns the first outcome.
 */
int tailscale_start(int node, int timeout_ms, char **err);

/*
 * tailscale_loopback opens one port on 127.0.0.1 for this node, once; later
 * calls return the same. *addr is "127.0.0.1:PORT".
 *
 *  - SOCKS5 (RFC 1928, 1929): user "tsnet", password *socks_password. CONNECT
 *    to IP addresses only, through the same guard as tailscale_dial. Replies: 2
 *    not on the tailnet, 4 unreachable, 5 refused, 6 timed out, 8 a name was given.
 *  - HTTP: LocalAPI under /localapi/v0/, basic auth with an empty user and
 *    *api_password, header "Sec-Tailscale: localapi". Only these endpoints:
 *    GET status, dns-query, watch-ipn-bus, tka/status, cert/DOMAIN; POST ping.
 */
int tailscale_loopback(int node, char **addr, char **socks_password, char **api_password, char **err);

/*
 * tailscale_dial connects to address on the tailnet. network is "tcp"; address
 * is "IPv4:port" or "[IPv6]:port": names are refused, since resolving them here
 * could ask the host's resolver. *fd is a stream socket.
 *
 * The guard: the address must be owned by a peer or by a route that this node
 * accepted; never this node's own. With allow_host_network any other unicast
 * address is dialled from the host's network, but never a loopback, link-local,
 * multicast, cloud-metadata or Tailscale address, nor one of this host's own.
 */
int tailscale_dial(int node, char *network, char *address, int timeout_ms, int *fd, char **err);

/*
 * tailscale_listen listens on the tailnet only. network is "tcp"; address is
 * ":port". *fd is a stream socket on which each accepted connection arrives as
 * one message: TAILSCALE_ACCEPT_BYTES bytes that hold the peer's "ip:port",
 * filled up with NUL, with the connection's descriptor attached (SCM_RIGHTS),
 * so that the two cannot be mixed up. Closing *fd closes the listener.
 */
enum { TAILSCALE_ACCEPT_BYTES = 64 };
int tailscale_listen(int node, char *network, char *address, int *fd, char **err);

/*
 * tailscale_whois tells which device of the tailnet has address, an IP or
 * "ip:port" ("": this node's own), and what the policy in force lets it do here.
 * *answer is the JSON of LocalAPI's whois (apitype.WhoIsResponse), or "null" if no
 * device has it. It is answered from memory.
 */
int tailscale_whois(int node, char *address, int timeout_ms, char **answer, char **err);

/*
 * tailscale_known asks control whether it still has this device, and has not
 * merely lost touch with it: *known is 1 or 0. A node cannot tell by itself; its
 * state stays Running. TAILSCALE_ERR_UNREACHABLE, TAILSCALE_ERR_TIMEOUT: control
 * did not say.
 */
int tailscale_known(int node, int timeout_ms, int *known, char **err);

/*
 * tailscale_netcheck measures the network around this host as the node sees it,
 * with the DERP regions of its own map; at most some seconds. *report is one
 * JSON object; what could not be found out is null, an address then "":
 *   udp, ipv4, ipv6   bool    an answer came that way
 *   ipv6_on_host      bool    the host has IPv6 at all
 *   mapped_ipv4       string  this host's "ip:port" as others see it
 *   mapped_ipv6       string
 *   mapped_is_own     bool    mapped_ipv4 is an address of the host: no NAT
 *   mapping_varies    bool    the NAT maps anew for each destination ("hard" NAT)
 *   upnp, nat_pmp, pcp  bool  what the router offers for port mapping
 *   captive_portal    bool
 *   preferred_region  int     0: none
 *   regions           [object] id (int), code, name, latency_ms (null: no answer);
 *                     the quickest first
 * TAILSCALE_ERR_UNREACHABLE: control has named no region yet.
 */
int tailscale_netcheck(int node, int timeout_ms, char **report, char **err);

/*
 * tailscale_login logs the node in again, in its place: after its key has expired,
 * or a login was refused. Control knows the device by the keys that it has, and
 * keeps its name and its addresses; one that it has deleted becomes a new one.
 * auth_key and client_secret are as in tailscale_new; with neither control is
 * asked for a login URL. It returns once control is asked; what comes of it is
 * on watch-ipn-bus. It takes as long as an exchange of the client secret does,
 * or as the node needs to give up a request to control that hangs. A call while
 * another one is under way waits for that one, and begins no second login.
 */
int tailscale_login(int node, char *auth_key, char *client_secret, int timeout_ms, char **err);

/*
 * tailscale_logout tells control that this node is gone (an ephemeral device is
 * removed at once) and returns when control has answered. The request is sent
 * first: it takes effect even if the answer is not waited for.
 */
int tailscale_logout(int node, int timeout_ms, char **err);

/*
 * tailscale_close ends the node: listeners, connections, the loopback port, the
 * state. It returns when all is closed or after timeout_ms (TAILSCALE_ERR_TIMEOUT;
 * the rest then goes on by itself). A node that was never started closes too.
 */
int tailscale_close(int node, int timeout_ms, char **err);

/* tailscale_free frees a string from this library; NULL is allowed. */
void tailscale_free(char *text);

#endif
