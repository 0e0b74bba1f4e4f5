"""Keywords of ssh_config(5), OpenSSH 6.8 to 10. Those that knnkit has no use for change nothing; others are refused."""

from __future__ import annotations

#: Host, Match, Include, ProxyCommand and ProxyJump are read elsewhere.
KEYWORDS = frozenset(
    """
    addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains canonicalizefallbacklocal
    canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms certificatefile
    challengeresponseauthentication channeltimeout checkhostip cipher ciphers clearallforwardings compression
    compressionlevel connectionattempts connecttimeout controlmaster controlpath controlpersist dsaauthentication
    dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fallbacktorsh
    fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted
    gatewayports globalknownhostsfile gssapiauthentication gssapiclientidentity gssapidelegatecredentials
    gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
    hashknownhosts hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms
    hostkeyalias hostname identitiesonly identityagent identityfile ignoreunknown ipqos
    kbdinteractiveauthentication kbdinteractivedevices kexalgorithms knownhostscommand localcommand localforward
    loglevel logverbose macs nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming
    passwordauthentication permitlocalcommand permitremoteopen pkcs11provider port preferredauthentications
    protocol proxyusefdpass pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication rekeylimit
    remotecommand remoteforward requesttty requiredrsasize revokedhostkeys rhostsrsaauthentication
    rsaauthentication securitykeyprovider sendenv serveralivecountmax serveraliveinterval sessiontype setenv
    smartcarddevice stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tag
    tcpkeepalive tunnel tunneldevice updatehostkeys useprivilegedport user userknownhostsfile verifyhostkeydns
    versionaddendum visualhostkey warnweakcrypto xauthlocation
    """.split()  # noqa: SIM905  (a hundred words are read better so)
)
