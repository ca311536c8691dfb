# SPDX-License-Identifier: GPL-2.0-or-later
# What `cmake --install` puts where, and the Debian package that `cpack` makes of it (the image is built from it too).
include(GNUInstallDirs)
install(TARGETS syngate RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
install(FILES deploy/systemd/syngate.service DESTINATION lib/systemd/system)
install(FILES docs/syngate.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(FILES deploy/completions/syngate.bash RENAME syngate
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES deploy/completions/_syngate DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CONTACT "The syngate developers <syngate@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "restart or reload any TCP server, and no client notices")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "Holds new connections in the kernel, by eBPF or iptables, while a server's listening sockets
change hands, or steers them to the new server's sockets.")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON) # dpkg-shlibdeps, of dpkg-dev
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "haproxy, iptables, bpftool")
include(CPack)
