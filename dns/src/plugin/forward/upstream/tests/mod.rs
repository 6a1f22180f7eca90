mod udp;
