"""Every error that this project raises on purpose.

::

    CcTailscaleError
    ├── SettingsError           one or more settings cannot be used
    ├── StateDirError           the directory that keeps the node's keys cannot be used
    ├── JoinError               the node is not on the tailnet
    │   ├── LoginNeeded           no key, or the key has expired: somebody has to open a link
    │   ├── KeyRefused            control does not take the key
    │   ├── ApprovalNeeded        an administrator has to approve the device
    │   ├── LockedOut             tailnet lock: a trusted device has to sign the node's key
    │   ├── NotLetIn              a person was waited for, who did not log in or approve in time
    │   ├── DeviceInUse           another process has the project's device open
    │   ├── ControlUnreachable    control gives no answer
    │   └── JoinTimeout           none of these, and yet not there in time
    ├── NodeError               the node cannot serve this call
    │   ├── NodeFailed            it failed in a way that has no name here: most likely a defect
    │   ├── NodeClosed            it was closed, because the server stops
    │   ├── NodeGone              control deleted the device
    │   └── ForkError             a forked child called into Go
    ├── DialError               one address on the tailnet, one attempt
    │   ├── BadUrl                not an address that can be asked for
    │   ├── BadHeader             a request header that is not the caller's to set
    │   ├── BadName               neither a name nor an address
    │   ├── NoSuchName            the tailnet's DNS does not know the name
    │   ├── ResolverFailed        the resolver that the tailnet's DNS has for the name gives no answer
    │   ├── NoSuchDevice          the address belongs to no device of the tailnet
    │   ├── NotOnTailnet          the guard: no peer and no accepted route owns it
    │   ├── ConnectionRefused     the peer is there, nothing listens on the port
    │   ├── Unreachable           no path to the peer
    │   ├── TimedOut              no answer in time, also what a packet filter's drop looks like
    │   ├── TlsError              the peer's certificate or handshake was not accepted
    │   └── PeerProtocolError     the answer is not sound HTTP, or passes a limit
    ├── BadCall                 arguments of a tool that do not make a whole
    ├── NoDescriptors           this process may open nothing more
    ├── ForwardError            a port forward cannot be made or closed
    │   ├── PortTaken             the local port cannot be listened on
    │   ├── OwnNode               the target is this node itself
    │   ├── InboundOff            the user has not allowed to show a port to the tailnet
    │   ├── PortUnfit             a port that must not be shown, or cannot be
    │   ├── ForwardsFull          there are as many as there can be
    │   └── NoSuchForward         no forward has that id
    ├── SaveError               a file cannot be written
    │   ├── SaveRefused           it lies where no tool may write
    │   └── SaveFailed            the file system did not take it
    ├── AgentError              a message between agents cannot be made, sent or kept
    │   ├── NoAgent               no agent answers there
    │   ├── AgentRefused          the agent there said no, and why
    │   ├── AnswerLost            the connection broke after the question had gone out
    │   ├── NobodyReceived        not one of the recipients has the message
    │   ├── BadDocument           it is not what the protocol says
    │   ├── MessageConflict       its sender has used its id for another one
    │   ├── InboxFull             too much is unread
    │   └── InboxUnusable         the inbox's file cannot be opened or written
    ├── TeamError               something cannot be done with a team
    │   ├── TeamRefused           its rules say no
    │   ├── LeadOffline           its lead does not answer
    │   ├── FalseLead             who says to lead it does not have its key
    │   ├── NoTeam, InTeam        this session is in none, or in one already
    │   ├── NoTeamToShow          no session on this machine is in one
    │   ├── NoSuchTeam            there is none to go on with
    │   ├── NoTeamThere           the agent that is to be joined leads none
    │   ├── DisbandFirst          a lead cannot just leave
    │   ├── LedElsewhere          another process of this machine leads it
    │   ├── TeamEnded             it was disbanded, or this member removed
    │   └── TeamUnusable          the team's file cannot be opened or written
    ├── CertificateUnavailable  the node has no certificate and cannot get one
    └── LocalApiError           the node's own LocalAPI refused a call

The text of each says what happened, what it means and what to do next, in that order; the three are attributes as
well. The classes take facts and write the text themselves, so that a fact reads the same wherever it is raised.

Two rules hold for every text. No secret goes in: addresses are shown without user, password, query and fragment. What
control or a peer chose (a reason, a name) is data: control characters are taken out and the length is capped.
"""

from __future__ import annotations

from cctailscale.errors.agents import (
    AgentError,
    AgentRefused,
    AnswerLost,
    BadDocument,
    InboxFull,
    InboxUnusable,
    MessageConflict,
    NoAgent,
    NobodyReceived,
)
from cctailscale.errors.calls import (
    BadCall,
    CertificateUnavailable,
    ForwardError,
    ForwardsFull,
    InboundOff,
    NoDescriptors,
    NoSuchForward,
    OwnNode,
    PortTaken,
    PortUnfit,
    SaveError,
    SaveFailed,
    SaveRefused,
)
from cctailscale.errors.dialing import (
    BadHeader,
    BadName,
    BadUrl,
    ConnectionRefused,
    DialError,
    NoSuchDevice,
    NoSuchName,
    NotOnTailnet,
    PeerProtocolError,
    ResolverFailed,
    TimedOut,
    TlsError,
    Unreachable,
)
from cctailscale.errors.joining import (
    ApprovalNeeded,
    ControlUnreachable,
    DeviceInUse,
    ForkError,
    JoinError,
    JoinTimeout,
    KeyRefused,
    LocalApiError,
    LockedOut,
    LoginNeeded,
    NodeClosed,
    NodeError,
    NodeFailed,
    NodeGone,
    NotLetIn,
    SettingProblem,
    SettingsError,
    StateDirError,
)
from cctailscale.errors.teams import (
    DisbandFirst,
    FalseLead,
    InTeam,
    LeadOffline,
    LedElsewhere,
    NoSuchTeam,
    NoTeam,
    NoTeamThere,
    NoTeamToShow,
    TeamEnded,
    TeamError,
    TeamRefused,
    TeamUnusable,
)
from cctailscale.errors.text import UNPRINTABLE, CcTailscaleError, plain, shown_address

__all__ = [
    "UNPRINTABLE",
    "AgentError",
    "AgentRefused",
    "AnswerLost",
    "ApprovalNeeded",
    "BadCall",
    "BadDocument",
    "BadHeader",
    "BadName",
    "BadUrl",
    "CcTailscaleError",
    "CertificateUnavailable",
    "ConnectionRefused",
    "ControlUnreachable",
    "DeviceInUse",
    "DialError",
    "DisbandFirst",
    "FalseLead",
    "ForkError",
    "ForwardError",
    "ForwardsFull",
    "InTeam",
    "InboundOff",
    "InboxFull",
    "InboxUnusable",
    "JoinError",
    "JoinTimeout",
    "KeyRefused",
    "LeadOffline",
    "LedElsewhere",
    "LocalApiError",
    "LockedOut",
    "LoginNeeded",
    "MessageConflict",
    "NoAgent",
    "NoDescriptors",
    "NoSuchDevice",
    "NoSuchForward",
    "NoSuchName",
    "NoSuchTeam",
    "NoTeam",
    "NoTeamThere",
    "NoTeamToShow",
    "NobodyReceived",
    "NodeClosed",
    "NodeError",
    "NodeFailed",
    "NodeGone",
    "NotLetIn",
    "NotOnTailnet",
    "OwnNode",
    "PeerProtocolError",
    "PortTaken",
    "PortUnfit",
    "ResolverFailed",
    "SaveError",
    "SaveFailed",
    "SaveRefused",
    "SettingProblem",
    "SettingsError",
    "StateDirError",
    "TeamEnded",
    "TeamError",
    "TeamRefused",
    "TeamUnusable",
    "TimedOut",
    "TlsError",
    "Unreachable",
    "plain",
    "shown_address",
]
